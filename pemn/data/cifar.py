"""CIFAR-10 and CIFAR-100: how their published files are laid out.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", University of Toronto, 2009.
"""

from __future__ import annotations

from dataclasses import dataclass

SIDE = 32
"""Height and width of an image, in pixels."""

IMAGE_COLUMN = "img"


@dataclass(frozen=True)
class Layout:
    """How the hub lays a data set out.

    Attributes:
        name: What users call it.
        repository: Its name on the hub.
        config: The folder of the Parquet files, which is also the hub's name for the variant.
        label_column: Column of the labels.
        class_names: In label order, for files that do not say.
    """

    name: str
    repository: str
    config: str
    label_column: str
    class_names: tuple[str, ...]


_CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"

_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle
bowl boy bridge bus butterfly camel can castle caterpillar cattle
chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard
lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
plain plate poppy porcupine possum rabbit raccoon ray road rocket
rose sea seal shark shrew skunk skyscraper snail snake spider
squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor
train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

CIFAR10 = Layout(
    name="cifar10",
    repository="uoft-cs/cifar10",
    config="plain_text",
    label_column="label",
    class_names=tuple(_CIFAR10_CLASSES.split()),
)

CIFAR100 = Layout(
    name="cifar100",
    repository="uoft-cs/cifar100",
    config="cifar100",
    label_column="fine_label",
    class_names=tuple(_CIFAR100_CLASSES.split()),
)
