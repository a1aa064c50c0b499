"""The trees of an experiment's jobs, each value with the place it was written in: arms, seeds and baselines."""

from collections.abc import Mapping
from typing import Any

from atlas.errors import SpecError
from atlas.source import Source, merged, with_values, without
from atlas.tree import Node, Place


def arm_tree(source: Source, arm: str) -> Node:
    """The base with what the arm says on top, and the experiment's budget. Raises SpecError if both have one, or if
    the arm says what the experiment decides."""
    root = source.root.children
    tree, own = root["base"], root["arms"].children[arm]
    if own.value is not None:
        _refuse_ignored(source, arm)
        tree = merged(tree, own)
    if "budget" not in root:
        return tree
    if "budget" in tree.children:
        place = tree.key_places["budget"]
        raise SpecError([place.problem("the experiment has a budget too; say it in one place", "budget")])
    return with_values(tree, {"budget": root["budget"]})


def teachers_of(trees: Mapping[str, Node]) -> dict[str, Node]:
    """`teacher` -> the first arm's that has one; `teacher-<arm>` -> each other one."""
    teachers: dict[str, Node] = {}
    for arm, tree in trees.items():
        teacher = tree.children.get("teacher")
        if teacher is None or teacher.value is None:
            continue
        if not any(teacher.plain() == known.plain() for known in teachers.values()):
            teachers["teacher" if not teachers else f"teacher-{arm}"] = teacher
    return teachers


def baseline_tree(source: Source, reference: Node, teacher: Node | None) -> Node:
    """The student of the first arm's tree, or a teacher in its place, measured as it is and as the arms measure: a job
    of `method: evaluate`."""
    root = source.root
    tree = without(reference, "teacher", "training", "sampling", "budget")
    place = root.key_places["baselines"] if "baselines" in root.children else root.place
    student = teacher if teacher is not None else tree.children.get("student")
    values = {"method": _node({"type": "evaluate"}, place)}
    if student is not None:
        values["student"] = without(student, "lora") if isinstance(student.value, dict) else student
    evaluation = tree.children.get("evaluation")
    if evaluation is not None and isinstance(evaluation.value, dict):
        values["evaluation"] = without(evaluation, "every_steps", "every_minutes", "teacher")
    return with_values(tree, values)


def named(source: Source, name: str, seed: int) -> dict[str, Node]:
    return {"name": _node(name, source.find(("name",))[1]), "seed": _node(seed, source.find(("seeds",))[1])}


def unless_said(tree: Node, section: str, key: str, value: Any) -> Node:
    """Sets `section.key` where the file says nothing of it."""
    node = tree.children.get(section, _node({}, tree.place))
    if not isinstance(node.value, dict) or key in node.value:
        return tree
    return with_values(tree, {section: with_values(node, {key: _node(value, node.place)})})


def _refuse_ignored(source: Source, arm: str) -> None:
    said = [key for key in ("name", "seed") if key in source.root.children["arms"].children[arm].children]
    if said:
        message = "the experiment names and seeds its runs, so this would be ignored; remove it"
        raise SpecError([source.problem(message, ("arms", arm, key), at_key=True) for key in said])


def _node(value: Any, place: Place) -> Node:
    if isinstance(value, dict):
        return Node(
            {key: _node(item, place) for key, item in value.items()}, place, key_places=dict.fromkeys(value, place)
        )
    return Node(value, place, raw=str(value))
