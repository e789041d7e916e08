"""What can go wrong in a way that the user can fix."""


class MnistError(Exception):
    """It could not be done: one line that says what was wrong, where, and what to do."""

    exit_code = 1


class ConfigError(MnistError):
    """A hyperparameter or a config file is invalid."""

    exit_code = 2


class DataError(MnistError):
    """A data file or data directory is invalid."""


class MissingDataError(DataError):
    """A data set, or a part of it, is not in the data directory."""


class DownloadError(MnistError):
    """A file could not be downloaded from any mirror, or not be stored."""


class ModelFileError(MnistError):
    """A model file or checkpoint is invalid."""


class TrainingError(MnistError):
    """Training cannot start or cannot go on."""


class ImageError(MnistError):
    """A picture cannot be read, or shows no digit."""


class ArrayError(MnistError, ValueError):
    """Images or labels given from Python are not what the function takes."""
