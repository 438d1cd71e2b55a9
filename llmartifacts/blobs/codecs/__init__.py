"""The socket for codecs: one file each. `base.Codec` is the contract, `llmartifacts.plugins` the list."""
