"""Whatever the text is: no exception, bounded time, from every thread and after a fork."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.grading import GradingSpec, grade, parses, symbolic
from atlas.grading.compare import equal
from atlas.grading.latex import tidy

POLICIES = [GradingSpec(), GradingSpec(percent="fraction"), GradingSpec(ordered_lists=True)]

HOSTILE = [
    "\ud800 \\boxed{\ud800}",
    "\x00\\boxed{\x00}",
    "{" * 100_000,
    "\\boxed{" * 15_000,
    "\\boxed{" * 15_000 + "}" * 15_000,
    "\\boxed{" + "{" * 50_000 + "}" * 50_000 + "}",
    "\\[" * 50_000,
    "$" * 100_000,
    "$x" * 50_000,
    "The answer is " * 10_000,
    "answer to " * 10_000,
    "####" * 30_000,
    "\\boxed{9**9**9}",
    "\\boxed{9^{9^{9^{9}}}}",
    "\\boxed{((9^{999})^{999})^{999}}",
    "\\boxed{100000!}",
    "\\boxed{((99!)!)!}",
    "\\boxed{(x+1)^{999}(x-1)^{999}}",
    "\\boxed{\\binom{999}{500}^{999}}",
    "9" * 1_000_000,
    "\\boxed{" + "9" * 1_000_000 + "}",
    "\\boxed{" + "9" * 900 + "}",
    "\\boxed{1e999999999}",
    "1/" + "0" * 900,
    "(" * 400 + "1" + ")" * 400,
    "\\boxed{" + "\\frac{1}{" * 100 + "1" + "}" * 101,
    "\\boxed{" + "\\sqrt{" * 18 + "x" + "}" * 19,
    "1," * 50_000,
    "\\boxed{" + "(1,2)," * 160 + "x}",
    "\\text{" * 30_000,
    "or " * 30_000 + "5x",
    " " * 100_000,
    "=" * 100_000,
    "\\boxed{\u202e5}",
    "٣²",
]


def test_hostile_texts_are_graded_in_bounded_time() -> None:
    start = time.monotonic()
    for text in HOSTILE:
        assert not grade(text, "5").correct
        assert not grade(r"\boxed{x+1}", text).correct
        parses(text)
    assert time.monotonic() - start < 60


HOSTILE_MATHS = [
    "9**9**9",
    "9^{9^{9}}",
    "9^{9^{9^{9}}}!",
    "\\sum_{i=1}^{999}\\prod_{j=1}^{999} \\sin(i j x)",
    "{" * 100_000,
    "{" * 50_000 + "}" * 50_000,
    "(" * 50_000 + "1" + ")" * 50_000,
    "\\frac{1}{" * 15 + "x" + "}" * 15,
    "10^{99}, " * 50,
    "0.\\overline{" + "9" * 900 + "}",
    "√(" * 50_000,
]


def _grade_hostile_maths() -> None:
    for policy in POLICIES:
        for text in HOSTILE_MATHS:
            assert not grade(rf"\boxed{{{text}}}", "x+y", policy).correct
            assert not grade(r"\boxed{x+y}", text, policy).correct
        assert grade(r"\boxed{\sqrt{12}}", r"2\sqrt{3}", policy).correct


def test_hostile_maths_ends_in_threads() -> None:
    finished: list[bool] = []

    def work() -> None:
        _grade_hostile_maths()
        finished.append(True)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert finished == [True] * 3


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_hostile_maths_ends_in_processes(method: str) -> None:
    grade(r"\boxed{\sqrt{12}}", r"2\sqrt{3}")  # so that a fork finds a worker that is not its own
    processes = [multiprocessing.get_context(method).Process(target=_grade_hostile_maths) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
        process.kill()
    assert [process.exitcode for process in processes] == [0, 0]


def test_endless_computation_is_stopped_and_the_next_answer_is_graded() -> None:
    endless = r"\sum_{i=1}^{999}\prod_{j=1}^{999} \sin(i j x)"
    start = time.monotonic()
    verdict = grade(rf"\boxed{{{endless}}}", "x^2")
    assert (verdict.found, verdict.correct) == (True, False)
    assert time.monotonic() - start < 60
    assert grade(r"\boxed{\sqrt{12}}", r"2\sqrt{3}").correct


@given(st.text(), st.text(), st.sampled_from(POLICIES))
@example("\\boxed{\\frac{1}{0}}", "0", POLICIES[0])
@settings(max_examples=200, deadline=None)
def test_no_text_raises(completion: str, answer: str, policy: GradingSpec) -> None:
    verdict = grade(completion, answer, policy)
    assert verdict.found or not verdict.correct
    assert (verdict.extracted is not None) == verdict.found


_NOTATION = r"\boxed{ } { $ \( \) #### answer: 5 - / , . = \frac ^ \text{ cm % or x \sqrt ! ( ] \pm and 1,000 \{ ; ≈"
_PIECES = st.sampled_from([*_NOTATION.split(), " ", "\n", "the answer is "])


@given(st.lists(_PIECES, max_size=25).map("".join), st.lists(_PIECES, max_size=8).map("".join))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_mixture_of_notation_raises(completion: str, answer: str) -> None:
    verdict = grade(completion, answer)
    assert verdict.found or not verdict.correct


@given(st.text() | st.lists(_PIECES, max_size=12).map("".join), st.sampled_from(POLICIES))
@example("$$", POLICIES[0])
@example(r"\sqrt{", POLICIES[1])
@settings(max_examples=300, deadline=None)
def test_text_equals_itself_exactly_when_something_is_left_of_it(text: str, policy: GradingSpec) -> None:
    assert equal(text, text, policy) == (tidy(text) != "")
    assert grade(text, text, policy).correct == (tidy(text) != "")


@given(st.text(min_size=1001, max_size=1100), st.sampled_from(POLICIES))
@example(" " * 2000, POLICIES[0])
@settings(max_examples=20, deadline=None)
def test_long_text_equals_itself_unless_it_is_blank(text: str, policy: GradingSpec) -> None:
    assert equal(text, text, policy) == (not text.isspace())


_ONE = (
    r"\sqrt{2} 2\sqrt{2} \sqrt{8} \pi x y A x+1 1+x 1 2 1/2 0.5 50% 10\% 10 0.1 5 \infty 1e3 10^3 \pm1 -1 three 24_5 "
    "24_6 0.3333 1/3"
)
_ANSWERS = st.sampled_from([*_ONE.split(), "5 cm", "5 m", "5 centimeters"])
_SHAPES = st.sampled_from(
    [
        *("{0}", "x = {0}", "({0}, {1})", "[{0}, {1})", "{0}, {1}", "{1}; {0}", "{0} or {1}", "x = {0}, y = {1}"),
        *(r"\{{{0}, {1}\}}", "{0} < x < {1}", r"x \ge {0}", r"{0}\text{{ cm}}", r"${0}\%$"),
        r"\begin{{pmatrix}} {0} & {1} \end{{pmatrix}}",
    ]
)
_SHAPED = st.builds(lambda shape, left, right: shape.format(left, right), _SHAPES, _ANSWERS, _ANSWERS)


@given(_SHAPED, _SHAPED, st.sampled_from(POLICIES))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_equality_has_no_direction(left: str, right: str, policy: GradingSpec) -> None:
    assert equal(left, right, policy) == equal(right, left, policy)


_SPELLINGS = [
    "{0}",
    "The answer is: {0}",
    "#### {0}",
    "\\boxed{{{0}}}",
    "so we get ${0}$.",
    "Final Answer: {0} apples.",
]


@given(st.integers(-(10**12), 10**12), st.sampled_from(_SPELLINGS), st.sampled_from(["d", ",d"]))
def test_every_integer_equals_itself_and_not_its_neighbour(number: int, spelling: str, grouping: str) -> None:
    completion = spelling.format(format(number, grouping))
    assert grade(completion, str(number)).correct
    assert not grade(completion, str(number + 1)).correct


@given(st.fractions(max_denominator=10_000), st.fractions(max_denominator=10_000))
def test_fractions_are_equal_exactly_when_their_values_are(left: Fraction, right: Fraction) -> None:
    written = rf"\boxed{{{'-' if left < 0 else ''}\frac{{{abs(left.numerator)}}}{{{left.denominator}}}}}"
    assert grade(written, str(left)).correct
    assert grade(written, str(right)).correct == (left == right)


@given(st.decimals(-(10**6), 10**6, places=3))
def test_decimals_equal_their_fraction(number: object) -> None:
    value = Fraction(str(number))
    assert grade(f"The answer is {number:,}.", f"{value.numerator}/{value.denominator}").correct


def test_threads_grade_side_by_side() -> None:
    verdicts: list[bool] = []

    def work(number: int) -> None:
        verdicts.append(grade(rf"\boxed{{\sqrt{{{number * number * 7}}}}}", rf"{number}\sqrt{{7}}").correct)
        verdicts.append(not grade(rf"\boxed{{\sqrt{{{number * number * 7}}}}}", rf"{number}\sqrt{{5}}").correct)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2, 12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert verdicts == [True] * 20


def test_forked_process_grades_with_a_worker_of_its_own() -> None:
    assert grade(r"\boxed{\sqrt{18}}", r"3\sqrt{2}").correct
    child = os.fork()
    if child == 0:
        right = grade(r"\boxed{\sqrt{50}}", r"5\sqrt{2}").correct and not grade(r"\boxed{\sqrt{50}}", r"\pi").correct
        symbolic._worker.close()
        os._exit(0 if right else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert grade(r"\boxed{\sqrt{98}}", r"7\sqrt{2}").correct


def test_killed_worker_is_replaced() -> None:
    assert grade(r"\boxed{\sqrt{20}}", r"2\sqrt{5}").correct
    process = symbolic._worker._process
    assert process
    process.kill()
    process.wait()
    assert grade(r"\boxed{\sqrt{45}}", r"3\sqrt{5}").correct


def test_interrupted_question_leaves_no_reply_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(symbolic, "_read_byte", interrupt)
        with pytest.raises(KeyboardInterrupt):
            grade(r"\boxed{\sqrt{80}}", r"4\sqrt{5}")
    assert not grade(r"\boxed{\sqrt{125}}", r"4\sqrt{5}").correct
    assert grade(r"\boxed{\sqrt{125}}", r"5\sqrt{5}").correct


def test_missing_math_verify_is_said_and_not_graded_as_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    symbolic._worker.close()
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(AtlasError, match="math-verify, which compares answers, cannot start"):
        grade(r"\boxed{\sqrt{99}}", r"3\sqrt{11}")


def test_numbers_are_graded_without_sympy_and_the_worker_without_torch() -> None:
    program = (
        "import sys\n"
        "from atlas.grading import grade, symbolic\n"
        "assert grade('The answer is: $1,000', '1000').correct\n"
        "assert symbolic._worker._process is None\n"
        "assert not {'sympy', 'math_verify', 'torch'} & set(sys.modules)\n"
        "assert grade(r'\\boxed{\\sqrt{12}}', r'2\\sqrt{3}').correct\n"
        "maps = open(f'/proc/{symbolic._worker._process.pid}/maps').read()\n"
        "assert 'torch' not in maps\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
