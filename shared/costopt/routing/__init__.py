"""Routing: the cheapest model that will do. See `Router` and `GainEstimator`."""

from costopt.routing.answers import AnswerEstimator
from costopt.routing.books import RouterStats
from costopt.routing.budget import Budget
from costopt.routing.calibrate import Calibration, calibrate_router
from costopt.routing.cascade import AnswerScorer, Cascade, Reply
from costopt.routing.decision import Attempt, RouteDecision
from costopt.routing.decision_log import DecisionLog
from costopt.routing.estimator import Estimator, HeuristicEstimator
from costopt.routing.evaluate import RouterEvaluation, evaluate_router
from costopt.routing.gain import GainEstimator, Training, load_router, train_router
from costopt.routing.outcomes import Outcomes, read_outcomes
from costopt.routing.policies import DollarsPer1000, Policy, QualityFloor, StrongShare, Thresholds
from costopt.routing.request import RouteRequest
from costopt.routing.router import Router
from costopt.routing.serving import Ask, Served, Work, adrive, drive, serve
from costopt.routing.sticky import Sticky
from costopt.routing.tier import Tier

__all__ = [
    "AnswerEstimator",
    "AnswerScorer",
    "Ask",
    "Attempt",
    "Budget",
    "Calibration",
    "Cascade",
    "DecisionLog",
    "DollarsPer1000",
    "Estimator",
    "GainEstimator",
    "HeuristicEstimator",
    "Outcomes",
    "Policy",
    "QualityFloor",
    "Reply",
    "RouteDecision",
    "RouteRequest",
    "Router",
    "RouterEvaluation",
    "RouterStats",
    "Served",
    "Sticky",
    "StrongShare",
    "Thresholds",
    "Tier",
    "Training",
    "Work",
    "adrive",
    "calibrate_router",
    "drive",
    "evaluate_router",
    "load_router",
    "read_outcomes",
    "serve",
    "train_router",
]
