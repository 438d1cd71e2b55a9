"""Where bytes are kept: `store.BlobStore` hashes, verifies and compresses over a tiny driver (`base.Driver`)."""
