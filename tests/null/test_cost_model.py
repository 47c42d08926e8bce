"""Learning what groups cost: features, splits, training, model files, and learned costs."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic_groups import HOST, group_time_us, operators, record, records

from cost_model.baselines import BASELINES
from cost_model.conformal import conformal_offset, scores
from cost_model.dataset import Dataset, build_dataset
from cost_model.evaluation import evaluate_split
from cost_model.features import FEATURES, MONOTONE, group_features, lay_out, setting_row
from cost_model.forest import Forest
from cost_model.learn import learn
from cost_model.metrics import bootstrap, evaluate, spearman
from cost_model.model_file import (
    CostModel,
    describe_model,
    encode_model,
    load_model,
    save_model,
    target_kind,
)
from cost_model.operator_features import Column, operator_rows
from cost_model.records import Spread
from cost_model.shipped import find_shipped
from cost_model.splits import SPLITS, folds_of, network_of
from cost_model.train import Trained, TrainOptions, fit, margin_of
from hios.costs.table import shared_cores_us
from hios.errors import CostModelMismatch, InvalidOption, InvalidRecord, MissingFile

OPERATORS = operators(12, seed=5)
QUICK = TrainOptions(rounds=120, depth=3, eta=0.1, quantile_rounds=40, calibration_folds=3)

Chains = list[list[int]]
CHAINS = st.lists(st.lists(st.integers(0, 11), min_size=1, max_size=3), min_size=2, max_size=5)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return build_dataset(records(500, seed=1))


@pytest.fixture(scope="module")
def trained(data: Dataset) -> Trained:
    return fit(data, QUICK)


@pytest.fixture(scope="module")
def model(data: Dataset, trained: Trained) -> CostModel:
    return describe_model(data, trained)


def features_of(groups: list[Chains]):
    rows = operator_rows(OPERATORS, HOST)
    setting = np.array([setting_row(HOST, "eager", "warm")])
    return group_features(rows, lay_out(groups), setting, is_cpu=True)


class TestFeatures:
    @given(chains=CHAINS, data=st.data())
    def test_which_stream_a_chain_is_on_does_not_matter(
        self, chains: Chains, data: st.DataObject
    ) -> None:
        mixed = data.draw(st.permutations(chains))
        one, other = features_of([chains])[0], features_of([mixed])[0]
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

    @given(groups=st.lists(CHAINS, min_size=2, max_size=4))
    def test_a_batch_is_its_parts(self, groups: list[Chains]) -> None:
        batch, basis = features_of(groups)
        for i, group in enumerate(groups):
            own, alone = features_of([group])
            np.testing.assert_array_equal(batch[i], own[0])
            assert basis.shared_us[i] == alone.shared_us[0]

    @given(chains=CHAINS)
    def test_the_basis_is_what_it_says(self, chains: Chains) -> None:
        found, basis = features_of([chains])
        solo = [sum(OPERATORS[i].solo_us.p50 for i in chain) for chain in chains]
        narrow = [sum(OPERATORS[i].narrow_us.p50 for i in chain) for chain in chains]
        assert basis.sum_us[0] == pytest.approx(sum(solo))
        assert basis.longest_us[0] == pytest.approx(max(solo))
        assert basis.longest_us[0] <= basis.bound_us[0] <= basis.sum_us[0]
        assert basis.shared_us[0] == pytest.approx(shared_cores_us(solo, narrow, HOST.units))
        assert found.shape == (1, len(FEATURES))
        assert np.isfinite(found).all()

    def test_the_two_longest_operators_have_the_slots(self) -> None:
        times = [op.solo_us.p50 for op in OPERATORS]
        first, second = sorted(range(len(times)), key=times.__getitem__)[-2:][::-1]
        found, basis = features_of([[[first], [second]], [[second, first], [first]]])
        names = [FEATURES.index(f"slot{slot}_time") for slot in (1, 2)]
        assert found[0, names] == pytest.approx([times[first], times[second]] / basis.sum_us[0])
        assert found[1, names] == pytest.approx([times[first], times[first]] / basis.sum_us[1])

    def test_cuda_launches_fill_the_device(self) -> None:
        limits = {"threads": 2048, "blocks": 32, "registers": 65536, "shared_bytes": 102400}
        gpu = replace(HOST, kind="cuda", units=100, limits=limits)
        launch = {"grid": 600, "block": 256, "registers": 64, "shared_bytes": 51200}
        op = replace(OPERATORS[0], launch=launch, narrow_us=None)
        row = operator_rows([op], gpu)[0]
        # Shared memory lets two blocks in, registers four, threads eight: 600 / 200 rounds.
        assert row[Column.WAVES] == pytest.approx(math.log1p(3.0))
        assert row[Column.TAIL] == 0.0
        assert row[Column.DEMAND] == row[Column.SOLO]
        small = replace(op, launch={**launch, "grid": 50})
        assert operator_rows([small], gpu)[0][Column.DEMAND] == pytest.approx(row[0] / 4)

    def test_an_operator_without_time_is_refused(self) -> None:
        with pytest.raises(InvalidRecord, match="no solo time"):
            operator_rows([replace(OPERATORS[0], solo_us=None)], HOST)


class TestDataset:
    def test_rejected_and_single_groups_are_left_out(self) -> None:
        good = records(5)
        bad = replace(good[0], valid=False, reject="drift")
        alone = record([[OPERATORS[0], OPERATORS[1]]])
        assert build_dataset([*good[1:], bad, alone]).ids == build_dataset(good[1:]).ids
        with pytest.raises(InvalidRecord, match="collect more"):
            build_dataset([bad, alone])

    def test_the_order_of_records_does_not_matter(self) -> None:
        some = records(40)
        one, other = build_dataset(some), build_dataset(some[::-1])
        np.testing.assert_array_equal(one.features, other.features)
        assert one.digest() == other.digest()

    def test_a_repeat_tells_the_noise_and_is_no_group_of_its_own(self) -> None:
        some = records(10)
        assert build_dataset(some).noise is None
        first = some[0]
        again = replace(
            first,
            session="another",
            group_us=Spread(*[1.1 * t for t in (first.group_us.p10, first.group_us.p50)], 1e6, 30),
        )
        found = build_dataset([*some, again])
        assert len(found) == 10
        assert found.noise is not None
        assert found.noise.pairs == 1
        assert found.noise.visit == pytest.approx(0.1 / math.sqrt(2), rel=0.1)
        assert found.noise.mape == pytest.approx(found.noise.visit / math.sqrt(1.1))

    def test_kinds_of_devices_do_not_mix(self) -> None:
        one, other = records(2)
        gpu = replace(other, device=replace(HOST, kind="cuda"))
        with pytest.raises(InvalidRecord, match="cpu, cuda"):
            build_dataset([one, gpu])


class TestSplits:
    @pytest.mark.parametrize("split", SPLITS)
    def test_train_and_test_are_apart(self, data: Dataset, split: str) -> None:
        for fold in folds_of(data, split):
            assert not set(fold.train) & set(fold.test)

    def test_each_split_holds_out_what_it_says(self, data: Dataset) -> None:
        for fold in folds_of(data, "unseen-operator"):
            trained = frozenset().union(*(data.keys[i] for i in fold.train))
            assert all(not data.keys[i] <= trained for i in fold.test)
        for fold in folds_of(data, "unseen-group"):
            trained = frozenset().union(*(data.keys[i] for i in fold.train))
            assert all(data.keys[i] <= trained for i in fold.test)
        for fold in folds_of(data, "unseen-model"):
            held_out = {network_of(data.models[i]) for i in fold.test}
            assert held_out == {fold.name}
            assert fold.name not in {network_of(data.models[i]) for i in fold.train}
            assert not {data.ids[i] for i in fold.train} & {data.ids[i] for i in fold.test}

    def test_a_group_stays_in_its_fold_whatever_else_there_is(self) -> None:
        some = records(60)
        both = (build_dataset(some), build_dataset(some[:40]))
        tested = [
            {d.ids[i]: fold.name for fold in folds_of(d, "random") for i in fold.test} for d in both
        ]
        assert all(tested[0][group] == fold for group, fold in tested[1].items())

    def test_one_device_cannot_be_left_out(self, data: Dataset) -> None:
        assert folds_of(data, "unseen-device") == []
        some = records(40)
        more = [replace(r, device=replace(HOST, name="Other CPU")) for r in records(40, seed=9)]
        folds = folds_of(build_dataset([*some, *more]), "unseen-device")
        assert [fold.name for fold in folds][:2] == ["Other CPU ×2, zero-shot", "Other CPU ×2, 5 %"]
        assert len(folds[1].train) > len(folds[0].train) == 40
        with pytest.raises(InvalidOption, match="unknown split"):
            folds_of(build_dataset(some), "by-moon")


class TestMetrics:
    def test_perfect_predictions(self) -> None:
        y = np.array([-0.5, -0.2, 0.1, 0.3])
        found = evaluate(y, y, np.full(4, -0.7), list("abcd"), (y - 0.1, y + 0.1))
        assert (found.mape.value, found.p90, found.spearman, found.decided) == (0, 0, 1, 1)
        assert found.skill.value == found.coverage == 1.0

    def test_known_errors(self) -> None:
        y = np.log([0.5, 0.99, 1.2])
        guess = np.log([0.55, 1.5, 0.9])
        found = evaluate(y, guess, guess, ["a", "b", "c"])
        assert found.mape.value == pytest.approx((0.1 + 0.5152 + 0.25) / 3, abs=1e-4)
        assert (found.clear, found.decided) == (2, 0.5)
        assert found.skill.value == pytest.approx(0.0)

    def test_rank_correlation_with_ties(self) -> None:
        assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 20, 20])) == pytest.approx(
            0.866, 1e-3
        )
        assert spearman(np.ones(3), np.arange(3.0)) == 0.0

    def test_clusters_are_drawn_whole(self) -> None:
        values = np.array([0.0] * 50 + [1.0] * 50)
        apart = bootstrap(lambda at: float(values[at].mean()), [str(i) for i in range(100)])
        whole = bootstrap(lambda at: float(values[at].mean()), ["a"] * 50 + ["b"] * 50)
        assert whole.high - whole.low > 3 * (apart.high - apart.low)


class TestConformal:
    @given(st.lists(st.floats(-5, 5), min_size=1, max_size=50), st.floats(0.5, 0.99))
    def test_the_calibration_groups_are_covered(self, values: list[float], coverage: float) -> None:
        target = np.array(values)
        low, high = np.zeros(len(values)), np.ones(len(values))
        off = conformal_offset(scores(target, low, high), coverage)
        inside = (low - off <= target) & (target <= high + off)
        # As `low - off` rounds, the group on the very edge may fall out.
        assert inside.mean() >= coverage - 1 / len(values) - 1e-9

    def test_nothing_to_calibrate_on(self) -> None:
        with pytest.raises(InvalidOption, match="at least one group"):
            conformal_offset(np.array([]), 0.9)


class TestTraining:
    def test_it_learns_what_no_baseline_knows(self, data: Dataset) -> None:
        result = evaluate_split(data, "unseen-model", QUICK)
        assert result is not None
        assert result.learned.mape.value < 0.03
        assert result.learned.spearman > 0.98
        assert set(result.gains) == set(BASELINES)
        assert all(gain.low > 0.0 for gain in result.gains.values())
        assert result.learned.coverage is not None
        assert 0.8 < result.learned.coverage <= 1.0

    def test_the_same_data_give_the_same_bytes(self, tmp_path: Path) -> None:
        some = records(60)
        for name, given_records in (("a", some), ("b", some[::-1])):
            save_model(learn(given_records, QUICK, splits=()).model, tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_more_demand_is_never_faster(self, data: Dataset, model: CostModel) -> None:
        forest, rows = model.fitted.forest, data.features[:50]
        margin = np.zeros(50, np.float32)
        before = forest.predict(rows, margin)
        for name in MONOTONE:
            more = rows.copy()
            more[:, FEATURES.index(name)] += 0.5
            assert (forest.predict(more, margin) >= before).all()

    def test_predictions_are_clamped_and_inside_their_interval(
        self, data: Dataset, model: CostModel
    ) -> None:
        found = model.fitted.predict(data.features, data.basis)
        low, high = model.fitted.interval(data.features, data.basis)
        floor = np.log(data.basis.longest_us / data.basis.sum_us)
        assert (found >= floor).all()
        assert (low >= floor).all()
        assert (low <= high).all()
        assert ((low <= data.target) & (data.target <= high)).mean() > 0.85

    @pytest.mark.parametrize(
        "change", [{"rounds": 0}, {"depth": 40}, {"coverage": 1.0}, {"calibration_folds": 1}]
    )
    def test_wrong_options(self, data: Dataset, change: dict[str, float]) -> None:
        with pytest.raises(InvalidOption):
            fit(data, replace(QUICK, **change))

    def test_one_network_and_few_groups_still_train(self) -> None:
        few = [record([[OPERATORS[i]], [OPERATORS[i + 1]]]) for i in range(4)]
        assert learn(few, QUICK).model.facts.groups == 4
        with pytest.raises(InvalidOption, match="at least 2"):
            learn(few[:1], QUICK)


class TestForest:
    def test_it_says_what_xgboost_says(self, data: Dataset, trained: Trained) -> None:
        margin = margin_of(data.features, data.basis, trained.fitted.start)
        theirs = trained.booster.inplace_predict(data.features, base_margin=margin)
        ours = trained.fitted.forest.predict(data.features, margin)
        np.testing.assert_array_equal(ours[:, 0], theirs)
        both = np.repeat(margin[:, None], 2, axis=1)
        theirs = trained.quantiles.inplace_predict(data.features, base_margin=both)
        np.testing.assert_array_equal(
            trained.fitted.quantiles.predict(data.features, margin), theirs
        )

    def test_no_trees(self) -> None:
        import xgboost

        data = xgboost.DMatrix(np.zeros((2, 3)), np.zeros(2))
        forest = Forest.of(xgboost.train({"base_score": 0.0}, data, 0))
        start = np.array([1.0, 2.0], np.float32)
        assert forest.predict(np.zeros((2, 3), np.float32), start)[:, 0].tolist() == [1.0, 2.0]


class TestModelFile:
    def test_round_trip(self, data: Dataset, model: CostModel, tmp_path: Path) -> None:
        save_model(model, tmp_path / "m.ubj")
        again = load_model(tmp_path / "m.ubj")
        assert again.facts == model.facts
        for name in ("predict", "interval"):
            np.testing.assert_array_equal(
                getattr(again.fitted, name)(data.features, data.basis),
                getattr(model.fitted, name)(data.features, data.basis),
            )

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"schema": 99}, "schema 99, this version reads 1"),
            ({"features": ("phase_of_moon",)}, "other features .phase_of_moon"),
            ({"features": FEATURES[::-1]}, "another order"),
        ],
    )
    def test_another_schema_or_order_is_refused(
        self,
        model: CostModel,
        trained: Trained,
        tmp_path: Path,
        change: dict[str, object],
        message: str,
    ) -> None:
        facts = replace(model.facts, **change)  # type: ignore[arg-type]
        (tmp_path / "m.ubj").write_bytes(encode_model(trained, facts))
        with pytest.raises(CostModelMismatch, match=message):
            load_model(tmp_path / "m.ubj")

    def test_xgboost_reads_it_too(self, model: CostModel, tmp_path: Path) -> None:
        import xgboost

        save_model(model, tmp_path / "m.ubj")
        booster = xgboost.Booster(model_file=tmp_path / "m.ubj")
        assert booster.feature_names == list(FEATURES)

    def test_what_is_no_model_is_refused(
        self, model: CostModel, trained: Trained, tmp_path: Path
    ) -> None:
        path = tmp_path / "m.ubj"
        with pytest.raises(MissingFile):
            load_model(path)
        for content in (b"", b"hello", b"{" + b"\0" * 40, bytes(trained.booster.save_raw("ubj"))):
            path.write_bytes(content)
            with pytest.raises(CostModelMismatch, match=r"no cost model of hios-tvm"):
                load_model(path)

    @given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_damage_is_found(
        self, model: CostModel, tmp_path: Path, place: float, flip: int
    ) -> None:
        content = bytearray(model.content)
        content[int(place * len(content))] ^= flip
        (tmp_path / "m.ubj").write_bytes(content)
        try:
            again = load_model(tmp_path / "m.ubj")
        except CostModelMismatch:
            return
        # Statistics of the training, which nothing here reads.
        assert again.facts == model.facts
        assert again.fitted.forest.digest() == model.fitted.forest.digest()

    def test_a_cut_file_is_refused(self, model: CostModel, tmp_path: Path) -> None:
        (tmp_path / "m.ubj").write_bytes(model.content[:-100])
        with pytest.raises(CostModelMismatch, match="cut at byte"):
            load_model(tmp_path / "m.ubj")

    def test_another_target_or_device_is_refused(self, model: CostModel) -> None:
        model.require("cpu", '{"kind":"llvm","mcpu":"znver5"}')
        for kind, target in (("cuda", "cuda"), ("cpu", "c"), ("cuda", "llvm")):
            with pytest.raises(CostModelMismatch, match=r"was trained for target llvm on cpu"):
                model.require(kind, target)

    def test_targets_are_told_in_many_ways(self) -> None:
        texts = ('{"kind":{"name":"cuda"}}', "cuda -arch=sm_90", '{"kind":"cuda"}', "cuda")
        assert {target_kind(text) for text in texts} == {"cuda"}
        assert target_kind("") == ""

    def test_models_are_found_by_device(
        self, model: CostModel, trained: Trained, tmp_path: Path
    ) -> None:
        save_model(model, tmp_path / "old.ubj")
        newer = replace(model.facts, date="2027-01-01T00:00:00Z")
        (tmp_path / "new.ubj").write_bytes(encode_model(trained, newer))
        found = find_shipped("cpu", HOST.name, HOST.units, "llvm", tmp_path)
        assert found.path.name == "new.ubj"
        for asked in (("cpu", "Other", 2, "llvm"), ("cpu", HOST.name, 64, "llvm")):
            with pytest.raises(CostModelMismatch, match=f"there are models for {HOST.name} ×2"):
                find_shipped(*asked, tmp_path)
        with pytest.raises(CostModelMismatch, match="target cuda"):
            find_shipped("cuda", HOST.name, HOST.units, "cuda", tmp_path)


@settings(max_examples=20)
@given(chains=CHAINS)
def test_the_synthetic_machine_obeys_the_contract(chains: Chains) -> None:
    time = group_time_us([[OPERATORS[i] for i in chain] for chain in chains])
    assert time >= max(sum(OPERATORS[i].solo_us.p50 for i in chain) for chain in chains)
