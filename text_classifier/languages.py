"""Tell when a message is in a language that the adapter did not learn, so that its answer can be doubted."""

import functools
from collections.abc import Sequence

from text_classifier.characters import replace_half_surrogates

# The identifier's names for forms of a language. Cantonese and Wu are written like Chinese, and text messages in
# English look like Nigerian Pidgin.
_FORMS = {"en": ("en", "pcm"), "zh": ("zh", "yue", "wuu")}
_NO_LANGUAGE = "zxx"
# A text in another language shows it at its beginning.
_CHARACTERS = 1_000

# How much likelier a language must be than those that the adapter learned, as log odds. With this one,
# 0.5 % of the collection's ham counts as another language (most of that is), and 98.7 % of 300 short messages in ten
# other languages (`python -m benchmarks.accuracy`).
MARGIN = 10.0


def is_other_language(text: str, normalised: str, learned: Sequence[str]) -> bool:
    """Return whether a message is in a language that was not learned.

    py3langid (Lui and Baldwin 2012, "langid.py") compares 139 languages.

    Args:
        normalised: the message as `characters.normalise` returns it. Letter tricks, such as Cyrillic letters or accents
            in English words, are no other language.
        learned: ISO 639-1 codes such as `en`. If there are none, as after training on a file of your own, the languages
            are not known, and no message is in another one.
    """
    home = {form for language in learned for form in _FORMS.get(language, (language,))}
    beginnings = (replace_half_surrogates(text[:_CHARACTERS]), normalised[:_CHARACTERS])
    return bool(home) and all(_distance(beginning, home) > MARGIN for beginning in beginnings)


def _distance(text: str, home: set[str]) -> float:
    """Return the log odds of the likeliest other language against the likeliest in `home`."""
    scores = dict(_identifier().rank(text))
    known = max(scores.pop(language) for language in home)
    del scores[_NO_LANGUAGE]
    return max(scores.values()) - known


@functools.cache
def _identifier():
    # Imported and loaded when it is first asked, because loading takes half a second.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
