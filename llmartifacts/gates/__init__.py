"""The socket for gates: conditions that a promotion must meet. `base.Gate` is the contract."""
