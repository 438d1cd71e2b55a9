"""File formats read without the libraries that write them: pure, bytes in, structure out."""
