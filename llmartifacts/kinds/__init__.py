"""The socket for kinds: one file or folder each. `base.Kind` is the contract, `llmartifacts.plugins` the list."""
