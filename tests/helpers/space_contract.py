"""What every search space must keep: inherited by the tests of each."""

import json
import random

import pytest

from layersearch.errors import GenomeError
from layersearch.search.trials import GivenTrial, UniformTrial
from layersearch.spaces.contracts import Space, TunableSpace

__all__ = ["SpaceContract"]


class SpaceContract:
    """Subclasses give a fixture ``space``."""

    def test_genomes_are_hashable_and_round_trip_through_json(self, space: Space) -> None:
        rng = random.Random(0)
        for genome in [space.sample(rng) for _ in range(20)]:
            assert space.from_json(json.loads(json.dumps(space.to_json(genome)))) == genome
            assert hash(genome) == hash(space.from_json(space.to_json(genome)))

    def test_what_the_engine_stores_can_be_read_back(self, space: Space) -> None:
        for name, genome in {**space.seeds(), **space.baselines()}.items():
            assert space.from_json(json.loads(json.dumps(space.to_json(genome)))) == genome, name

    def test_sampling_and_mutation_follow_their_seed(self, space: Space) -> None:
        def draw(seed: int) -> list[object]:
            rng = random.Random(seed)
            genomes = [space.sample(rng)]
            for _ in range(20):
                genomes.append(space.mutate(genomes[-1], rng))
            return genomes

        assert draw(0) == draw(0)
        assert draw(0) != draw(1)

    def test_no_global_generator_is_touched(self, space: Space) -> None:
        before = random.getstate()
        rng = random.Random(0)
        space.probe(space.mutate(space.sample(rng), rng))
        assert random.getstate() == before

    def test_keys_are_functions_of_the_genome(self, space: Space) -> None:
        rng = random.Random(0)
        for genome in [space.sample(rng) for _ in range(20)]:
            assert space.outline(genome) == space.outline(genome)
            if space.outline(genome).reason is None:
                assert space.probe(genome) == space.probe(genome)
                assert space.same(genome, genome)

    def test_seeds_and_baselines_pass_the_screen(self, space: Space) -> None:
        for name, genome in {**space.seeds(), **space.baselines()}.items():
            assert space.outline(genome).reason is None, name
            assert space.probe(genome).reason is None, name

    def test_stage_ids_are_unique_and_resume_earlier_stages(self, space: Space) -> None:
        seen: set[str] = set()
        for stage in (*space.stages, *space.rerank_stages, *space.test_stages):
            assert stage.id not in seen
            assert stage.resumes is None or stage.resumes in seen
            seen.add(stage.id)
        rungs = [stage.rung for stage in space.stages if stage.rung is not None]
        assert rungs == sorted(rungs)
        assert set(rungs) == set(range(len(set(rungs))))
        assert space.stages[-1].rung is None

    def test_objectives_have_names_of_their_own(self, space: Space) -> None:
        assert len({o.name for o in space.objectives}) == len(space.objectives) > 0

    def test_suggestions_are_legal_and_are_given_again_by_their_parameters(self, space: Space) -> None:
        if not isinstance(space, TunableSpace):
            pytest.skip("has no parameters")
        rng, questions = random.Random(0), {}
        for _ in range(100):
            trial = UniformTrial(rng)
            genome = space.suggest(trial)
            assert space.from_json(json.loads(json.dumps(space.to_json(genome)))) == genome
            assert space.parameters(genome) == trial.answers
            assert space.suggest(GivenTrial(trial.answers)) == genome
            for name, question in trial.questions.items():
                assert questions.setdefault(name, question) == question, f"{name} is another question now"

    def test_known_layers_can_be_suggested(self, space: Space) -> None:
        if not isinstance(space, TunableSpace):
            pytest.skip("has no parameters")
        for name, genome in space.seeds().items():
            answers = space.parameters(genome)
            assert answers is not None, name
            assert space.outline(space.suggest(GivenTrial(answers))) == space.outline(genome), name

    @pytest.mark.parametrize("data", [{}, [], None, {"format": 1}, "x"], ids=str)
    def test_malformed_genomes_are_refused_in_one_sentence(self, space: Space, data: object) -> None:
        with pytest.raises(GenomeError) as caught:
            space.from_json(data)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
