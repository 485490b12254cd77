from raysk.spaces.encoders import drawn_encoders
from raysk.spaces.space import load_space


def shapes(space):
    return {(r.model.backbone, r.image_size, r.model.pooling, r.model.layers) for r in drawn_encoders(space)}


def test_every_combination_of_choices_is_an_encoder():
    space = load_space(
        "probe", ["model.pretrained=true", "model.backbone=choice(test_vit,test_resnet)", "image_size=choice(32,48)"]
    )
    expected = {
        (backbone, size, pooling, layers)
        for backbone in ("test_vit", "test_resnet")
        for size in (32, 48)
        for pooling in ("avg", "gem")
        for layers in (1, 2)
    }
    assert shapes(space) == expected


def test_a_choice_counts_only_where_it_exists(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "about: Mine.\nsettings: [stage_one=null, model.backbone=test_vit, model.checkpoint=v.safetensors]\n"
        "search:\n  model.backbone: choice(test_vit, test_resnet)\n"
        "  model.checkpoint:\n"
        "    - {sweep: 'choice(r.safetensors)', when: model.backbone=test_resnet}\n"
        "    - choice(v.safetensors)\n"
    )
    files = {(r.model.backbone, r.model.file.name) for r in drawn_encoders(load_space(str(path)))}
    assert files == {("test_vit", "v.safetensors"), ("test_resnet", "r.safetensors")}


def test_the_base_and_the_controls_have_the_first_choice_of_a_sweep_over_files():
    space = load_space("probe", ["model.checkpoint=choice(a.safetensors,b.safetensors)"])
    assert space.config().recipe.model.file.name == "a.safetensors"
    assert {space.config(point).recipe.model.file.name for point in space.named_points()} == {"a.safetensors"}
    assert {r.model.file.name for r in drawn_encoders(space)} == {"a.safetensors", "b.safetensors"}


def test_a_space_without_choices_of_encoders_has_its_base():
    (recipe,) = drawn_encoders(load_space("supcon"))
    assert recipe.model == load_space("supcon").config().recipe.model


def test_each_region_that_guides_the_attention_is_read_before_the_start():
    drawn = drawn_encoders(load_space("care"))
    assert {recipe.stage_two.care.region for recipe in drawn} == {"box", "mask"}
    guessed = drawn_encoders(load_space("care", ["stage_two.attention.region=choice(spectral_residual,fine_grained)"]))
    assert not any(recipe.reads_regions for recipe in guessed)
