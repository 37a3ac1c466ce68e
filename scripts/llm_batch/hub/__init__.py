"""Files of models and data sets from the Hugging Face hub, pinned by commit and checked."""
