"""Corrections are stored, can be taken back, and are trained on without changing held-out messages."""

import resource
import stat

import pandas as pd
import pytest
from training_runs import run_here

from gpt_classification_model import make_splits
from text_classifier.errors import ConfigurationError
from text_classifier.feedback import delete_feedback, open_feedback, read_feedback, save_feedback
from text_classifier.training.data import add_training_messages


@pytest.fixture
def feedback_file(tmp_path):
    path = tmp_path / "feedback.sqlite"
    open_feedback(path)
    return path


def test_corrections_are_kept_until_taken_back_and_only_their_owner_can_read_them(feedback_file):
    assert stat.S_IMODE(feedback_file.stat().st_mode) == 0o600
    save_feedback(feedback_file, "Your code is 1234", "spam", "ham")
    mistaken = save_feedback(feedback_file, "free prize 🎁 '); DROP TABLE feedback; --", "spam", "ham")
    delete_feedback(feedback_file, mistaken)
    save_feedback(feedback_file, "lone \ud800 surrogate", "ham", "spam")
    # Opening the file again keeps the corrections in it.
    open_feedback(feedback_file)
    assert read_feedback(feedback_file)["Text"].tolist() == ["Your code is 1234", "lone ? surrogate"]


def test_the_last_word_on_a_message_counts(feedback_file):
    for right in ("ham", "spam"):
        save_feedback(feedback_file, "Your code is 1234", "spam", right)
    assert read_feedback(feedback_file).to_dict("records") == [{"Label": "spam", "Text": "Your code is 1234"}]


def test_a_full_disk_is_told_in_one_line_and_loses_nothing(feedback_file):
    save_feedback(feedback_file, "Your code is 1234", "spam", "ham")
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (feedback_file.stat().st_size, hard))
    try:
        with pytest.raises(OSError, match=rf"^{feedback_file} cannot be written: .*Earlier corrections are safe.$"):
            save_feedback(feedback_file, "long " * 10_000, "spam", "ham")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert read_feedback(feedback_file)["Text"].tolist() == ["Your code is 1234"]


def test_corrections_never_touch_what_is_held_out_and_replace_what_is_trained_on():
    messages = pd.DataFrame(
        [("ham", f"see you at {i}") for i in range(200)] + [("spam", f"win prize {i}") for i in range(60)],
        columns=["Label", "Text"],
    )
    splits = make_splits(messages, ("ham", "spam"))
    tested, trained = splits["test"]["Text"].iloc[0], splits["train"].iloc[0]
    right = "spam" if trained["Label"] == 0 else "ham"
    texts = [f"{tested.upper()}!!", f" {trained['Text']} ", "something new"]
    feedback = pd.DataFrame({"Label": ["spam", right, "ham"], "Text": texts})
    after = add_training_messages(splits, "feedback", feedback, ("ham", "spam"))
    assert after["feedback"]["Text"].tolist() == texts[1:], "the test message in capitals is the test message"
    assert after["feedback"]["Label"].tolist() == [1 - trained["Label"], 0]
    assert trained["Text"] not in set(after["train"]["Text"]) and len(after["train"]) == len(splits["train"]) - 1
    for name in ("validation", "test", "left_out_validation", "left_out_test"):
        pd.testing.assert_frame_equal(after[name], splits[name])
    with pytest.raises(ConfigurationError, match="junk"):
        add_training_messages(splits, "feedback", feedback.assign(Label="junk"), ("ham", "spam"))


def test_training_takes_feedback_and_says_so(tmp_path, tiny_gpt2, messages_csv, feedback_file, capsys):
    save_feedback(feedback_file, "Your parcel arrives tomorrow", "spam", "ham")
    arguments = ["--model_name_or_path", str(tiny_gpt2), "--data_file", str(messages_csv)]
    arguments += ["--num_train_epochs", "1", "--feedback_file"]
    assert run_here(tmp_path, [*arguments, str(feedback_file)]) == 0
    results = tmp_path / "results" / messages_csv.stem
    assert pd.read_csv(results / "dataset/feedback.csv")["Text"].tolist() == ["Your parcel arrives tomorrow"]
    assert "also takes 1 message corrected in the chat" in (results / "model/README.md").read_text()
    capsys.readouterr()
    for wrong in (messages_csv, tmp_path / "nothing.sqlite"):
        assert run_here(tmp_path, [*arguments, str(wrong)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("Error: ") and wrong.name in error
