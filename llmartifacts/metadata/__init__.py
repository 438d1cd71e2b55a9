"""Where records are kept: `MetadataStore` over a `Database`, one SQL text for SQLite and PostgreSQL."""
