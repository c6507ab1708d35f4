"""The paper's prompts, names of domains, `{label}`."""

from __future__ import annotations

import pytest

from isthmus.errors import IsthmusError
from isthmus.translate.diffusion.prompts import check_prompt, kind_of_domain, prompt_for, with_label

# As the paper words them: domain, then Img2Img, InstructPix2Pix, ELITE.
PAPER = {
    "clipart": ("A clipart image of an object.", "Convert to a colored clipart image.", "A clipart image of S"),
    "painting": ("A painting of an object.", "Convert to a colored painting.", "A painting of a S"),
    "photo": (
        "A colorful realistic photo of an object.",
        "Convert to a colorful realistic photo.",
        "A realistic photo of a S",
    ),
    "product": (
        "A photo of an object without a background.",
        "Convert to a photo without a background.",
        "A product image of S on a white background",
    ),
    "sketch": (
        "A pencil/charcoal sketch of an object.",
        "Convert to a pencil/charcoal sketch.",
        "A pencil/charcoal sketch of S",
    ),
}


@pytest.mark.parametrize("domain", PAPER)
def test_the_papers_prompts_are_the_defaults(domain: str) -> None:
    for translator, wanted in zip(("img2img", "instruct-pix2pix", "elite"), PAPER[domain], strict=True):
        assert prompt_for(translator, domain) == wanted
    assert prompt_for("ip-adapter", domain) == PAPER[domain][0]


def test_office_home_and_cub_are_worded_otherwise_and_lack_nothing() -> None:
    home = {
        ("img2img", "Real World"): "A realistic photo of an object.",
        ("img2img", "Art"): "A painting of an object.",
        ("instruct-pix2pix", "Clipart"): "Convert to a clipart image.",
        ("instruct-pix2pix", "Art"): "Convert to a painting.",
        ("instruct-pix2pix", "Real"): "Convert to a realistic photo.",
        ("instruct-pix2pix", "Product"): "Convert to a photo without a background.",
        ("elite", "Art"): "A painting/artistic photo of a S",
    }
    for (translator, domain), wanted in home.items():
        assert prompt_for(translator, domain, "office-home") == wanted
    cub = {
        ("img2img", "real"): "A realistic photo of a bird.",
        ("img2img", "painting"): "A painting of a bird.",
        ("instruct-pix2pix", "real"): "Convert to a realistic photo.",
        ("instruct-pix2pix", "painting"): "Convert to a painting.",
        ("elite", "real"): "A colored realistic photo of S",
        ("elite", "painting"): "A painting of S",
    }
    for (translator, domain), wanted in cub.items():
        assert prompt_for(translator, domain, "cub") == wanted


def test_domains_are_known_by_their_usual_names() -> None:
    names = {"art_painting": "painting", "Real-World": "photo", "CLIP ART": "clipart", "drawings": "sketch"}
    assert {name: kind_of_domain(name) for name in names} == names
    assert kind_of_domain("cartoon") is None and kind_of_domain("") is None
    with pytest.raises(IsthmusError, match=r"no prompt for a target domain named 'infrared'.*--set prompt="):
        prompt_for("img2img", "infrared")


@pytest.mark.parametrize(
    ("text", "label", "said"),
    [
        ("A painting of a {label}.", "alarm_clock", "A painting of an alarm clock."),
        ("A painting of an {label}.", "cat", "A painting of a cat."),
        ("A {label} photo", None, "An object photo"),
        ("A {label}.", "001.Black_footed_Albatross", "A Black footed Albatross."),
        ("{label}, {label}", "17", "object, object"),
        ("a {label}", "", "an object"),
        ("a {label}", "3d_printer", "a 3d printer"),
        ("no label", "cat", "no label"),
    ],
)
def test_labels_are_put_in_with_the_article_that_fits(text: str, label: str | None, said: str) -> None:
    assert with_label(text, label) == said


def test_other_placeholders_are_refused() -> None:
    assert check_prompt("a {label}") == "a {label}"
    with pytest.raises(IsthmusError, match=r"\{class\}"):
        check_prompt("a {class}")
