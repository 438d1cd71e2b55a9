"""Keys, envelopes and statements: what a signature is made over, and how it is verified.

Nothing here is loaded by `import llmartifacts`, by logging or by resolving, but the names: the libraries are imported
where something is signed or verified.
"""
