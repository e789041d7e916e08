"""The data sets: their official files, mirrors, digests and label names."""

from dataclasses import dataclass

import numpy as np

from mnist_cli.data import idx

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class File:
    """An official file: its name and shape, and what tells it from any other."""

    name: str
    shape: tuple[int, ...]
    gz_size: int  # bytes
    gz_sha256: str
    sha256: str | None  # of the uncompressed bytes; None where nobody has published it

    @property
    def size(self) -> int:
        """The length of the uncompressed file, in bytes."""
        return idx.Header(np.dtype(np.uint8), self.shape).size


@dataclass(frozen=True)
class Dataset:
    """A data set: where its files come from and what its labels mean."""

    name: str
    mirrors: tuple[str, ...] = ()
    files: tuple[File, ...] = ()  # none where the data set is generated
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Progress:
    """So many bytes of the file `name`, as it is transferred, have been received."""

    name: str
    received: int
    total: int


@dataclass(frozen=True)
class Notice:
    """Something went wrong, or takes longer, and the download goes on: one line."""

    message: str


@dataclass(frozen=True)
class Done:
    """The file is in place: its bytes and SHA-256, uncompressed."""

    name: str
    bytes: int
    sha256: str
    status: str  # downloaded, verified or generated


Event = Progress | Notice | Done


def _official(*digests: tuple[int, str, str | None]) -> tuple[File, ...]:
    names = (*NAMES["train"], *NAMES["test"])
    shapes = ((60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,))
    return tuple(File(n, s, *d) for n, s, d in zip(names, shapes, digests, strict=True))


MNIST = Dataset(
    "mnist",
    # Never yann.lecun.com, which asks scripts to stay away.
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
    files=_official(
        (
            9912422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        (
            28881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        (
            1648877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        (
            4542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
)
FASHION_MNIST = Dataset(
    "fashion-mnist",
    mirrors=(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    files=_official(
        (
            26421880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        (
            29515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        (
            4422102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        (
            5148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    label_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
)
KMNIST = Dataset(
    "kmnist",
    mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    files=_official(
        (18165135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4", None),
        (29497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17", None),
        (3041136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5", None),
        (5120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c", None),
    ),
    label_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
)
DATASETS = {d.name: d for d in (MNIST, FASHION_MNIST, KMNIST, Dataset("synthetic"))}
