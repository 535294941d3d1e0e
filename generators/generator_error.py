"""The error of generators, apart from their contract: what the contract itself imports raises it too."""

from engines.errors import UsageError


class GeneratorError(UsageError):
    """A generator that cannot be used; the text says why and what to do."""
