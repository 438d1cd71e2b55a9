"""Storage below large blobs: chunks in packs, named by recipes, found by an index. Nothing outside `blobs` sees it."""
