"""What is known of the backbones before Keras is imported."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from carcls.catalogue import APPLICATIONS, BACKBONES, check_preprocessing, find_spec
from carcls.errors import UserError

ROOT = Path(__file__).parent.parent
FILES = {path.stem: path for path in (ROOT / "conf" / "backbone").glob("*.yaml")}


def told(name):
    with pytest.raises(UserError) as error:
        find_spec(name)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "preprocessing", "default_size", "min_size", "weights_file"),
    [
        ("vgg16", "caffe", 224, 32, "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("resnet50", "caffe", 224, 32, "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("mobilenetv2", "tf", 224, 32,
         "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
        ("nasnetmobile", "tf", 224, 32, "nasnet_mobile_no_top.h5"),
        ("efficientnetb3", "none", 300, 32, "efficientnetb3_notop.h5"),
        ("xception", "tf", 299, 71, "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("DenseNet121", "torch", 224, 32,
         "densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("InceptionResNetV2", "tf", 299, 75,
         "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5"),
        ("EfficientNetV2S", "none", 384, 32, "efficientnetv2-s_notop.h5"),
        ("NASNetLarge", "tf", 331, 32, "nasnet_large_no_top.h5"),
        ("smallcnn", "unit", 32, 30, None),
        ("googlenet", "tf", 224, 15, "googlenet-1378be20.pth"),
    ],
)  # fmt: skip
def test_a_backbone_is_known_by_its_facts(
    name, preprocessing, default_size, min_size, weights_file
):
    spec = find_spec(name)
    facts = (spec.name, spec.preprocessing, spec.default_size, spec.min_size, spec.weights_file)
    assert facts == (name, preprocessing, default_size, min_size, weights_file)


@pytest.mark.parametrize("name", ["densenet121", "DENSENET121", "DenseNet121"])
def test_a_class_of_keras_is_found_whatever_its_capitals(name):
    assert find_spec(name).application == find_spec(name).name == "DenseNet121"


@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_class_of_keras_is_found_by_its_name(name):
    spec = find_spec(name)
    assert spec.application == name
    assert spec.min_size <= spec.default_size
    assert spec.weights_file.endswith(".h5")
    assert "{" not in spec.weights_file


def test_a_backbone_of_its_own_name_is_meant_by_its_class_too():
    assert find_spec("Xception") is find_spec("xception") is BACKBONES["xception"]
    assert find_spec("Xception").application == "Xception"


def test_each_option_of_the_group_is_one_backbone_and_the_last_is_any_class_of_keras():
    assert set(FILES) == {*BACKBONES, "keras"}
    for name, path in FILES.items():
        option = yaml.safe_load(path.read_text())
        weights = "none" if name == "smallcnn" else "imagenet"
        option = option.get("backbone", option)  # smallcnn brings image_size and finetune along
        assert option == {"name": name, "weights": weights, "preprocessing": "native"}


def test_keras_without_a_name_is_told_with_examples_and_all_there_are():
    message = told("keras")
    assert "Expected backbone=keras to come with the name of a class of keras.applic" in message
    assert "backbone.name=CLASS, such as backbone.name=DenseNet121, EfficientNetV2S or" in message
    assert "Received: no name." in message
    assert all(name in message for name in APPLICATIONS)


@pytest.mark.parametrize("name", ["efficentnet", "DenseNet", "DenseNet-121", ""])
def test_an_unknown_backbone_is_refused_with_the_list_of_known_ones(name):
    message = told(name)
    assert message.startswith("Expected backbone to be one of efficientnetb3, xception, inceptionv")
    assert "or backbone=keras with backbone.name one of VGG16, VGG19, ResNet50" in message
    assert message.endswith(f"ConvNeXtXLarge. Received: backbone.name={name}")


@pytest.mark.parametrize("name", ["vgg16", "mobilenetv2", "xception", "DenseNet121", "MobileNet"])
def test_unit_preprocessing_may_stand_in_for_one_before_the_network(name):
    check_preprocessing(find_spec(name), "unit")


@pytest.mark.parametrize("name", ["ConvNeXtTiny", "EfficientNetV2B0", "MobileNetV3Large"])
def test_unit_preprocessing_is_refused_for_classes_that_preprocess_themselves(name):
    with pytest.raises(UserError, match=f"Expected backbone.preprocessing=native for {name}: its"):
        check_preprocessing(find_spec(name), "unit")


def test_the_facts_are_known_without_keras():
    code = (
        "import sys; from carcls.catalogue import find_spec; find_spec('ConvNeXtTiny');"
        "print({'keras', 'tensorflow', 'jax', 'torch', 'numpy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
