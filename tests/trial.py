"""A small experiment on the quickstart's models."""

from pathlib import Path

TINY = Path(__file__).parents[1] / "specs" / "quickstart"
JOB = f"""
name: base-job
student: {{model: {TINY}/student}}
teacher: {{model: {TINY}/teacher}}
method: {{type: gkd}}
dataset: {{type: arithmetic, size: 400, dev_size: 4, test_size: 8}}
training: {{max_steps: 10, learning_rate: 1e-4}}
sampling: {{max_completion_length: 8}}
evaluation: {{every_steps: 5, max_completion_length: 8}}
resources: {{gpus: 0}}
"""
EXPERIMENT = """
kind: experiment
name: trial
base: ./job.yaml
arms:
  gkd: {}
  grpo:
    teacher: null
    method: {type: grpo}
    training: {learning_rate: 1e-5}
seeds: [3, 5]
"""
