"""Prints the commands of a composite action that run by default: action.py ACTION.YML."""

import sys

import yaml

with open(sys.argv[1]) as file:
    action = yaml.safe_load(file)
assert action["runs"]["using"] == "composite", action
steps = [step for step in action["runs"]["steps"] if "if" not in step]
assert steps and all(step["shell"] == "bash" for step in steps), steps
print("\n".join(step["run"] for step in steps))
