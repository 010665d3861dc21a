# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
import os
import sys
from pathlib import Path

ROOT = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "pyproject.toml").exists())
sys.path.insert(0, str(ROOT))  # Jupyter starts in the notebook's folder
STUDY = os.environ.get("STUDY", str(ROOT / "results" / "synthetic-ablation"))  # the folder that contains study.json

# %% [markdown]
# # The arms of an ablation
# Open it with Jupyter and jupytext, or convert it with `jupytext --to ipynb ablation.py`. Set `STUDY` above
# to a study with a finished ERM and other arms.

# %%
from IPython.display import Image, display

from analysis.comparison.arms import adjusted, arms_table
from analysis.comparison.paired import compare
from analysis.formatting import formatted
from analysis.loading.study import load_study
from analysis.plots.forest import forest_figure, forest_info
from analysis.plots.steps import steps_figure, steps_info
from analysis.plots.style import render
from analysis.report.leave_one_out_section import leave_one_out_comparisons, leave_one_out_info, leave_one_out_table
from analysis.tables.benchmark import benchmark
from analysis.tables.comparison import comparison_table

study = load_study(STUDY)
comparison = adjusted(compare(study, "ERM", split="test"))
print(f"{len(study.configurations)} arms over seeds {', '.join(map(str, study.seeds))}, test utterances")
for note in comparison.notes:
    print("·", note)

# %% [markdown]
# ## W-F1 and the AVG gap
# Every arm against ERM, on the same utterances and seeds. W-F1 has a 95 % interval. The AVG gap has the 95 % range of
# the paired permutation null instead. Holm's correction adjusts p over the arms.

# %%
formatted(arms_table(comparison))

# %% [markdown]
# The forest plot shows the same table: to the right of 0 an arm is better than ERM. A filled marker is a
# significant difference after Holm. A dashed line is the 95 % range of the permutation null, not an interval.

# %%
Image(render(forest_figure(forest_info(comparison, ("w_f1", "avg"), scopes=(comparison.overall,))), "png"), width=860)

# %% [markdown]
# ## One part at a time
# Each row removes one part from the paper's setting, or adds one to the plain penalty; 0 is that configuration. If a
# part matters, removing it moves the marker to the left of 0, and adding it moves the marker to the right.

# %%
leave_one_out = leave_one_out_comparisons(study, 2000, 0)
if leave_one_out:
    display(formatted(leave_one_out_table(leave_one_out)))
    display(Image(render(forest_figure(leave_one_out_info(leave_one_out)), "png"), width=860))

# %% [markdown]
# ## By language and modality
# Signed gaps have intervals, with one marker per cell. A marker is filled if the difference is significant after Holm
# over the cells of an arm. A crossed-out marker is a gap that reversed and became larger.

# %%
Image(render(forest_figure(forest_info(comparison)), "png"), width=860)

# %%
comparison_table(
    comparison, ("w_f1", "standardised_w_f1", "signed_tpr", "avg"), configuration=comparison.table["name"].iloc[0]
)

# %% [markdown]
# ## In the layout of the benchmark
# Test figures in points, gaps absolute, means over seeds; multilingual is the unweighted mean over languages. Read
# a gap beside its noise floor, which the report states.

# %%
for modality, table in benchmark(study, study.configurations["config_id"].tolist()).items():
    print(modality)
    display(table.round(2))

# %% [markdown]
# ## The loss over the training steps
# Each column is an arm: the fairness weight, each cell's gap of training losses, the active cell, and the share of
# utterances with a negative weight. Where that share is high, the better group is being unlearned.

# %%
steps = steps_info(study)
if steps is not None:
    display(Image(render(steps_figure(steps), "png"), width=1000))
