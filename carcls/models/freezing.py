"""Which layers of the backbone train, and whether they are skipped at random meanwhile."""

import keras


def freeze(backbone: keras.Model, trainable: float, batch_norm: str) -> int:
    """Lets the top share of the backbone's layers train and freezes those below.

    The model must be compiled anew afterwards. A frozen BatchNorm layer also stops moving its
    statistics (Keras runs it in inference mode), which is why `batch_norm="frozen"` works by
    freezing the layer: `training=False` in the call would be overridden by `fit` (keras #20285).

    Args:
        backbone: The network, without preprocessing and head.
        trainable: Share in [0, 1] of its layers, counted from the top (the output).
        batch_norm: Whether BatchNorm layers in the unfrozen part `train`, or stay `frozen`.

    Returns:
        How many layers train, those without weights included.
    """
    first = round(len(backbone.layers) * (1.0 - trainable))
    backbone.trainable = trainable > 0
    for index, layer in enumerate(backbone.layers):
        is_held = batch_norm == "frozen" and isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = index >= first and not is_held
    return len(backbone.layers) - first


def keep_every_block(backbone: keras.Model) -> None:
    """Turns stochastic depth off (Huang et al., 2016), for good: no block is skipped any more.

    The model must be compiled anew afterwards. Networks have it as a Dropout of whole photos;
    Dropout of single numbers stays.

    Args:
        backbone: The network, without preprocessing and head.
    """
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Dropout) and layer.noise_shape is not None:
            layer.rate = 0.0


def learning_rate_shares(backbone: keras.Model, bottom: float) -> dict[str, float]:
    """Discriminative learning rates (Howard and Ruder, 2018): the lower a layer, the slower.

    Args:
        backbone: The network, without preprocessing and head.
        bottom: Share in (0, 1] of the learning rate for its first layer; its last one has 1, and in
            between the shares grow geometrically, layer by layer.

    Returns:
        The path of each of the backbone's variables to its share.
    """
    layers = [layer for layer in backbone.layers if layer.weights]
    steps = max(len(layers) - 1, 1)
    return {
        variable.path: bottom ** (1.0 - index / steps)
        for index, layer in enumerate(layers)
        for variable in layer.weights
    }
