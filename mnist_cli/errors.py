"""What can go wrong in a way the user can put right."""


class MnistError(Exception):
    """It could not be done: one line that says what was wrong, where, and what to do."""

    exit_code = 1


class ConfigError(MnistError):
    """A hyperparameter or a config file is not what it has to be."""

    exit_code = 2


class DataError(MnistError):
    """A data file or data directory is not what it says it is."""


class MissingDataError(DataError):
    """A data set, or a part of it, is not in the data directory."""


class DownloadError(MnistError):
    """A file could not be had from any mirror, or not be stored."""


class ModelFileError(MnistError):
    """A model file or checkpoint is not what it has to be."""


class TrainingError(MnistError):
    """The training cannot start or cannot go on."""


class ImageError(MnistError):
    """A picture cannot be read, or shows nothing to recognise."""
