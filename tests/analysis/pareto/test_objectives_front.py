"""The front over the search objectives of a study."""

from __future__ import annotations

from analysis.pareto.objectives_front import objectives_front, objectives_table

PLAN = {"objectives": [["dev_uar", "max"], ["seconds", "min"]], "constraints": ["dev_gap<=0.1"], "seeds": [0]}


def test_front_is_over_the_studys_own_objectives_and_constraints():
    def record(number, values, violation=-0.01, config_id=None, seeds=1, label=None):
        return {
            "number": number,
            "label": label,
            "config_id": config_id or str(number),
            "hyperparameters": {"loss.power": 1},
            "state": "finished",
            "values": values,
            "violations": {"dev_gap<=0.1": violation},
            "by_seed": {str(seed): values for seed in range(seeds)},
        }

    trials = [
        record(0, [0.50, 20.0]),
        record(1, [0.40, 10.0], label="ERM"),
        record(2, [0.45, 30.0]),  # dominated by 0
        record(3, [0.90, 5.0], violation=0.02),  # the best, but violates the constraint
        record(4, [0.50, 20.0], config_id="0"),  # proposed twice
        record(5, [0.95, 1.0], seeds=0),  # its seed is missing
    ]
    points = objectives_front(PLAN, trials)
    assert points.set_index("config_id")["on_front"].to_dict() == {"0": True, "1": True, "2": False, "3": False}
    assert points.set_index("config_id").loc["3", "violations"] == {"dev_gap<=0.1": 0.02}
    table = objectives_table(points, PLAN)
    assert table[["configuration", "dev_uar", "seconds"]].to_numpy().tolist() == [
        ["trial 0", "50.0", "20.0"],
        ["ERM", "40.0", "10.0"],
    ]
    assert objectives_front(PLAN, []).empty
