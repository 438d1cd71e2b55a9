"""The kind `vector_index`: a FAISS index, its documents, and how it was made.

value       START HERE: `VectorIndex` and what a search gives
kind        pack, unpack, diff, summary
config      what a manifest says of one, and `EmbeddingSpec`
source      reading one from files, for the command line
langchain   the value as LangChain's VectorStore

update      the next version of one: what stayed is not embedded again
editing     adds to a FAISS index and removes from it
training    what an index learnt: its digest, and taking it over
overlap     how alike two indexes answer
making      documents and vectors in, a value out; what is bad is refused
build       vectors -> a FAISS index, the same bytes each time
probing     chooses the probes of a new index
probes      texts and queries whose answers are known, and asking them again
documents   documents as JSONL, read line by line when a hit names them

guard       opens a FAISS file: map, walk, read, make read-only
contents    ids and exact vectors, read from the file itself
mapped      files mapped read-only
"""
