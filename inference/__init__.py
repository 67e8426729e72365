"""How it is computed: training, estimation and sampling for any Pyro program pair."""

from aevb.inference.evidence.ais import ais_evidence, bdmc_evidence
from aevb.inference.evidence.annealed import AISEvidence, BDMCEvidence
from aevb.inference.evidence.annealing import (
    Pilot,
    adaptive_schedule,
    linear_schedule,
    sigmoid_schedule,
)
from aevb.inference.evidence.bounds import BoundedEvidence, bounded_evidence
from aevb.inference.evidence.estimate import Evidence
from aevb.inference.evidence.importance import ImportanceEvidence, importance_evidence
from aevb.inference.evidence.posterior import SOURCES, Posterior
from aevb.inference.evidence.posterior_draws import HMCEvidence, hmc_evidence
from aevb.inference.evidence.psis import pareto_khat, pooled_khat
from aevb.inference.evidence.repair import posterior
from aevb.inference.mcmc.draws import Draws
from aevb.inference.mcmc.hmc import hmc
from aevb.inference.process.devices import pick_device
from aevb.inference.process.randomness import seeded
from aevb.inference.programs.layouts import NoDensityError
from aevb.inference.programs.log_density import LogDensity, guide_draws
from aevb.inference.programs.program import Program
from aevb.inference.programs.protocol import ProgramPair
from aevb.inference.programs.simulate import Simulation, simulate
from aevb.inference.svi.checkpoint import load_checkpoint, save_checkpoint
from aevb.inference.svi.compiled_step import CompiledStep, compiled_step
from aevb.inference.svi.diagnosis import NonFiniteLossError
from aevb.inference.svi.fit import fit
from aevb.inference.svi.mcem import mcem
from aevb.inference.svi.objectives import (
    ELBO,
    IWAE,
    BetaELBO,
    DReG,
    EnumeratedELBO,
    FreeBits,
    Objective,
    StickingTheLanding,
)
from aevb.inference.svi.refinement import LocalPosterior, NoFamilyError, Refinement, refine
from aevb.inference.svi.run import Run
from aevb.inference.svi.saved_programs import load, save
from aevb.inference.svi.stopping import Rise, UntilConverged
from aevb.inference.svi.training import CHECKPOINT
from aevb.inference.svi.validation import mean_elbo
from aevb.inference.svi.wake_sleep import WakeSleep, wake_sleep

__all__ = [
    "AISEvidence",
    "BDMCEvidence",
    "BetaELBO",
    "BoundedEvidence",
    "CHECKPOINT",
    "CompiledStep",
    "DReG",
    "Draws",
    "ELBO",
    "EnumeratedELBO",
    "Evidence",
    "FreeBits",
    "HMCEvidence",
    "IWAE",
    "ImportanceEvidence",
    "LocalPosterior",
    "LogDensity",
    "NoDensityError",
    "NoFamilyError",
    "NonFiniteLossError",
    "Objective",
    "Pilot",
    "Posterior",
    "Program",
    "ProgramPair",
    "Refinement",
    "Rise",
    "Run",
    "SOURCES",
    "Simulation",
    "StickingTheLanding",
    "UntilConverged",
    "WakeSleep",
    "adaptive_schedule",
    "ais_evidence",
    "bdmc_evidence",
    "bounded_evidence",
    "compiled_step",
    "fit",
    "guide_draws",
    "hmc",
    "hmc_evidence",
    "importance_evidence",
    "linear_schedule",
    "load",
    "load_checkpoint",
    "mcem",
    "mean_elbo",
    "pareto_khat",
    "pick_device",
    "pooled_khat",
    "posterior",
    "refine",
    "save",
    "save_checkpoint",
    "seeded",
    "sigmoid_schedule",
    "simulate",
    "wake_sleep",
]
