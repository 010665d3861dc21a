"""The one exception of the corpus readers."""


class CorpusError(ValueError):
    """A corpus that cannot be used as it is; the message names the file, the row and the remedy."""
