"""The kind `eval_dataset`: items with stable ids, what they look like, and how two versions of them differ.

value.py     START HERE: EvalDataset and Item
formats/     one file a format, in and out
sources.py   files on disk: compression, encoding and size caps
rows.py      rows -> items: JSON-plain values, fields, ids
fields.py    which column is the input, the expected output, the id, the metadata, the split
schema.py    what the columns hold          splits.py   hash splits and seeded samples
compare.py   item-level differences         drift.py    what shifted between two versions
embeddings.py  how their embeddings moved   texts.py    text as these comparisons read it
leakage.py   test items in a training set   training.py  training items in any form
overlap.py   texts inside texts: the exact index of word shingles
kind.py      pack, unpack, check, diff, summary
"""
