import resource

import pytest

from atlas.errors import RunFailed
from atlas.training.chat_template import check_chat_template

from .tiny import CHAT_TEMPLATE, character_tokenizer

MESSAGES = ({"role": "user", "content": "1+1?"},)
LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
DOUBLINGS = "{% set x = namespace(s='a') %}{% for i in range(40) %}{% set x.s = x.s + x.s %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "limit"),
    [
        (LOOPS, "time limit of 1 s"),
        ("{{ 7 ** (3 * 10 ** 8) }}", "time limit"),
        ("{{ 'a' * (10 ** 9) }}", "memory limit of 256 MiB"),
        (DOUBLINGS, "(memory|time) limit"),
        ("{{ 'a' * (10 ** 7) }}", "limit of 1,000,000 characters"),
    ],
)
def test_a_template_that_burns_time_or_memory_is_refused(template, limit):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(RunFailed, match=f"chat template of the tokenizer exceeds the {limit}.*; correct it") as caught:
        check_chat_template(character_tokenizer(chat_template=template), MESSAGES)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert caught.value.reason == "bad_model"
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, None, "{{ raise_exception('no') }}", "{% unknown %}"])
def test_any_other_template_passes_and_limits_nothing_of_ours(template):
    check_chat_template(character_tokenizer(chat_template=template), MESSAGES)
    assert resource.getrlimit(resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY
