"""One row per rule of docs/grading.md."""

import pytest

from atlas.grading import Verdict, grade, parses

RIGHT = [
    # boxes
    (r"so \boxed{5}", "5"),
    (r"first \boxed{3}. Then" + "\n" + r"\boxed{5}", "5"),
    (r"\boxed{\frac{1}{2}}", "0.5"),
    (r"\boxed{\boxed{5}}", "5"),
    (r"\fbox{5}", "5"),
    (r"\boxed{1}, \boxed{2} and \boxed{3}", "3, 2, 1"),
    (r"\boxed{5}. The answer is: 6", "5"),
    # announced answers
    ("The answer is: 5", "5"),
    ("The answer is: 4. No, the answer is 5.", "5"),
    ("Final Answer: The largest $n$ is 34.", "34"),
    ("**Final Answer**\n\nAnswer: **5**", "5"),
    ("## Final Answer:\n\n$$5$$", "5"),
    ("The answer is: \\[\n 5\n\\]", "5"),
    ("The answer is that John has 5 apples because he had 3 left.", "5"),
    ("The answer is 48 clips in April and May.", "48"),
    ("The answer is 3 + 4 = 7. I hope it is correct.", "7"),
    ("The answer is 5. This answer is correct.", "5"),
    ("We know that the answer is 2, so we write 2 = 100/Z. The value of Z is 50.", "50"),
    ("The answer to the question is 5.", "5"),
    ("The answer is therefore $\\sqrt{2}$.", r"\sqrt 2"),
    ("2+3=<<2+3=5>>5\n#### 5", "5"),
    # maths and the last number
    ("Answer \\( 9 \\)", "$9$"),
    ("we find that $x = 5$", "5"),
    ("$x=1$ or $x=2$", "2, 1"),
    ("He pays $5 and gets $6, so he has $11 more", "11"),
    ("so it takes 5km on the 2nd day", "5"),
    ("the number is 10 which is 1,000.99m²", "1000.99"),
    # numbers
    ("7,425,000", "7425000"),
    (r"\boxed{32,\! 349}", "32349"),
    (r"\boxed{12{,}345}", "12345"),
    ("1 000", "1000"),
    ("1.22", "1,22"),
    (".4", "0.4"),
    ("1000.0", "1,000"),
    ("5.", "5"),
    ("−3", "-3"),
    ("-$5", "-5"),
    ("2 1/2", "2.5"),
    (r"\boxed{-2\frac{1}{2}}", "-5/2"),
    (r"\frac12", "1/2"),
    (r"\tfrac83", "8/3"),
    ("5/8", "0.625"),
    ("2.6667", "8/3"),
    ("1e3", "1000"),
    ("5 million", "5,000,000"),
    # units
    (r"10\text{ cm}", "10"),
    ("10 cm", "10"),
    (r"\boxed{5 \text{ cm}^2}", "5"),
    ("5 apples", "5"),
    ("The answer is $18 per day.", "18"),
    ("5 dollars", "$5"),
    (r"\boxed{90^\circ}", "90"),
    (r"\boxed{10\%}", "10"),
    ("28 pct", r"$28\%$"),
    (r"\boxed{2\pi\text{ cm}}", r"2\pi"),
    # equations and collections
    ("x=5", "5"),
    ("5", "x = 5"),
    (r"\boxed{(1, 4.5)}", r"(1,\frac{9}{2})"),
    (r"\{2, 1\}", "1, 2"),
    ("(1, 2)", "1,2"),
    ("$(5,2),(7,2)$", "$p=5,q=2;p=7,q=2$"),
    # choices and words
    ("The answer is (B).", "B"),
    ("**B**", "B"),
    ("The answer is option C", r"$\text{C}$"),
    ("The answer is (B) 12 apples", "B"),
    ("The answer is Tuesday.", r"\text{tuesday}"),
    # mathematics
    (r"\boxed{2\sqrt{3}}", r"$\sqrt{12}$"),
    (r"\boxed{(x+1)^2}", "x^2+2x+1"),
    (r"\boxed{1,000\pi}", r"1000\pi"),
]

WRONG = [
    # hedges and lists that contain the answer
    ("The answer is 5 or 6", "5"),
    ("The answer is 5 or 6", "6"),
    ("it is 5 or 6", "6"),
    ("The answer is: 3, 4, 5", "5"),
    ("The answer is $5$ or $6$", "6"),
    (r"\boxed{5} or \boxed{6}", "6"),
    ("The answer is not 5", "5"),
    (r"\boxed{\text{not } 5}", "5"),
    ("The answer is between 5 and 10", "10"),
    ("The answer is more than 5", "5"),
    ("The answer is 5 out of 6", "5"),
    ("The answer is 5-6", "5"),
    ("The answer is 5 to 6", "6"),
    ("The answer is (A) or (B)", "A"),
    ("The answer is (A) and B", "A"),
    # a number inside of something else
    ("The answer is 5 and a half", "5"),
    ("The answer is half of 10", "10"),
    ("The answer is twenty 5", "5"),
    ("The answer is 5 million", "5"),
    ("The answer is: $5$ million", "5"),
    ("The answer is 12:30", "30"),
    ("The answer is 1,000", "1"),
    (r"\boxed{3x}", "3"),
    (r"\boxed{5t}", "5"),
    (r"\boxed{5ab}", "5"),
    (r"\boxed{5!}", "5"),
    (r"\boxed{\sqrt{5}}", "5"),
    (r"\boxed{x^2=25}", "25"),
    ("The answer is 5^2", "5"),
    ("The answer is 5/0", "5"),
    # signs, rounding, percent
    ("-5", "5"),
    ("0.33", "1/3"),
    ("3.1416", "3.14159"),
    (r"\boxed{10\%}", "0.1"),
    (r"10\%", "1"),
    # units that differ
    (r"\boxed{10\text{ m}}", r"10\text{ cm}"),
    (r"\boxed{\$5}", "5 cents"),
    (r"\boxed{5\text{ m}^2}", r"5\text{ m}"),
    # collections
    ("(1,2)", "(2,1)"),
    ("(1,2)", "[1,2]"),
    ("[1,2]", "1,2"),
    (r"\{1,3\}", "(1,3)"),
    ("1, 2, 3", "1, 2"),
    # texts
    ("The answer is A", "B"),
    ("AB", "ab"),
    (r"\frac{a}{bc}", r"\frac{ab}{c}"),
    ("1 2", "12"),
]


@pytest.mark.parametrize(("completion", "answer"), RIGHT)
def test_right_answer_is_found_and_correct(completion: str, answer: str) -> None:
    verdict = grade(completion, answer)
    assert (verdict.found, verdict.correct) == (True, True), verdict


@pytest.mark.parametrize(("completion", "answer"), WRONG)
def test_wrong_answer_is_found_and_not_correct(completion: str, answer: str) -> None:
    verdict = grade(completion, answer)
    assert (verdict.found, verdict.correct) == (True, False), verdict


@pytest.mark.parametrize(
    "completion", ["", "   \n", "I do not know.", r"\boxed{", r"\boxed{}", "####", "$$", "The answer is"]
)
def test_completion_without_an_answer_is_not_found(completion: str) -> None:
    assert grade(completion, "5") == Verdict(found=False, correct=False, extracted=None)


def test_empty_gold_answer_is_never_reached() -> None:
    assert not grade("", "").correct
    assert not grade("5", "").correct


def test_extracted_is_the_answer_as_written() -> None:
    assert grade("So the answer is: $1,000$ dollars.", "1000").extracted == "1,000"
    assert grade(r"thus $x=\boxed{2-2p}$.", "5").extracted == "2-2p"


def test_box_that_was_cut_off_is_left_out() -> None:
    assert not grade(r"so we get \boxed{12", "12").found
    assert grade(r"so we get 125 apples: \boxed{12", "125").correct


@pytest.mark.parametrize(
    "answer", ["5", "-1,000", "1/2", r"\frac{1}{2}", "B", "(1,2)", "x^2", r"1 \pm \sqrt{19}", "#### 18"]
)
def test_numbers_collections_choices_and_maths_parse(answer: str) -> None:
    assert parses(answer)


@pytest.mark.parametrize("answer", ["", " ", "Tuesday", "the red fox", r"\sqrt{", "{", "9" * 2000])
def test_words_and_broken_maths_do_not_parse(answer: str) -> None:
    assert not parses(answer)
