"""The embedded backend: one verb per file, over `MetadataStore` and `BlobStore`."""
