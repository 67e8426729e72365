"""How it is computed: training, estimation and sampling for any Pyro program pair."""

from aevb.inference.ais import AISEvidence, BDMCEvidence, ais_evidence, bdmc_evidence
from aevb.inference.checkpoint import load_checkpoint, save_checkpoint
from aevb.inference.devices import pick_device
from aevb.inference.diagnosis import NonFiniteLossError
from aevb.inference.fit import fit
from aevb.inference.hmc import Draws, hmc
from aevb.inference.hmc_evidence import HMCEvidence, hmc_evidence
from aevb.inference.importance import ImportanceEvidence, importance_evidence
from aevb.inference.layouts import NoDensityError
from aevb.inference.log_density import LogDensity, guide_draws
from aevb.inference.objectives import (
    ELBO,
    IWAE,
    BetaELBO,
    DReG,
    FreeBits,
    Objective,
    StickingTheLanding,
)
from aevb.inference.program import Program, ProgramPair
from aevb.inference.psis import pareto_khat
from aevb.inference.randomness import seeded
from aevb.inference.refinement import LocalPosterior, NoFamilyError, Refinement, refine
from aevb.inference.simulate import Simulation, simulate
from aevb.inference.training import CHECKPOINT, Run
from aevb.inference.validation import mean_elbo

__all__ = [
    "AISEvidence",
    "BDMCEvidence",
    "BetaELBO",
    "CHECKPOINT",
    "DReG",
    "Draws",
    "ELBO",
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
    "Program",
    "ProgramPair",
    "Refinement",
    "Run",
    "Simulation",
    "StickingTheLanding",
    "ais_evidence",
    "bdmc_evidence",
    "fit",
    "guide_draws",
    "hmc",
    "hmc_evidence",
    "importance_evidence",
    "load_checkpoint",
    "mean_elbo",
    "pareto_khat",
    "pick_device",
    "refine",
    "save_checkpoint",
    "seeded",
    "simulate",
]
