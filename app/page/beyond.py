"""What is needed beyond the tensors of the peak, with formula and source as the terms have them: pages that the
allocator cannot give back, and the margin of the upper bound."""

from __future__ import annotations

from app.page.terms import Group, GroupedTerms
from app.page.words import MIB, percent
from ctxplan import Planner
from ctxplan.models import ModelFacts
from estimator import Estimate, Job
from estimator.answer import EVEN_ODDS
from estimator.calibration.bound import Evidence, weigh_evidence
from estimator.calibration.structural import PRESSURE_SLACK_BYTES, PRESSURE_SLACK_UPPER_BYTES
from estimator.device import find_device
from estimator.estimate import Term
from estimator.resolve import resolve
from estimator.sizes import sizes_of

STRUCTURE = "margins of the structure"
"""What `weigh_evidence` calls them."""

KEPT = Group("rounding", "Partly used pages", "memory that the allocator cannot give back")
RESERVED = "estimator/calibration/reserved.py least_reserved_bytes; structural.py"
SOURCE = f"{RESERVED} PRESSURE_SLACK_BYTES"
UPPER_SOURCE = f"{RESERVED} PRESSURE_SLACK_UPPER_BYTES: the most of such pages, and kernels beyond the usual"


def evidence_of(job: Job, planner: Planner, facts: ModelFacts) -> Evidence:
    """Whose residuals the bound of a job's estimate is from. Raises CtxplanError where the estimate does."""
    run = resolve(job, facts.architecture, find_device(job.gpu), calibration=planner.calibration)
    length = run.job.sequence_length or run.job.max_seq_length
    sequences = run.job.per_device_train_batch_size
    sizes = sizes_of(run.architecture, max_seq_length=run.job.max_seq_length, sequences=sequences, length=length)
    return weigh_evidence(run, sizes)


def beyond(estimate: Estimate, evidence: Evidence) -> tuple[GroupedTerms, ...]:
    """The groups that follow those of the tensors; with theirs they sum to the upper bound of what is needed."""
    confidence = percent(estimate.confidence, 0)
    margin = Group("margin", "Upper bound", f"the margin above what is expected, with {confidence} confidence")
    found = ((KEPT, (_kept(estimate),)), (margin, (_error(estimate, evidence), _more_kept(estimate))))
    groups = [(group, tuple(term for term in terms if term.bytes)) for group, terms in found]
    return tuple(GroupedTerms(group, terms, sum(term.bytes for term in terms)) for group, terms in groups if terms)


def _kept(estimate: Estimate) -> Term:
    size = estimate.needed_bytes.expected - estimate.peak_allocated_bytes.expected
    formula = f"{_mib(PRESSURE_SLACK_BYTES)}, or what fragmentation adds to the tensors where that is less"
    return Term("partly_used_pages", size, formula, SOURCE)


def _error(estimate: Estimate, evidence: Evidence) -> Term:
    tensors = estimate.peak_allocated_bytes
    source = f"{evidence.stratum}: estimator/calibration/structural.py PATH_MARGINS"
    if evidence.stratum != STRUCTURE:
        bound = percent(estimate.confidence, 0)
        source = f"bound at {bound} from {evidence.stratum}: estimator/calibration/bound.py weigh_evidence"
    if not evidence.inside:
        source += "; with what evidence.py adds outside the measured range, as listed under What was assumed"
    formula = f"{percent(evidence.margin, 3)} of the tensors at the peak"
    return Term("error_of_the_estimate", tensors.upper - tensors.expected, formula, source)


def _more_kept(estimate: Estimate) -> Term:
    tensors, needed = estimate.peak_allocated_bytes, estimate.needed_bytes
    size = (needed.upper - tensors.upper) - (needed.expected - tensors.expected)
    most = PRESSURE_SLACK_UPPER_BYTES if estimate.confidence > EVEN_ODDS else PRESSURE_SLACK_BYTES
    formula = f"{_mib(most)}, or what fragmentation adds to the bound where that is less; without those expected"
    return Term("more_such_pages", size, formula, SOURCE if most == PRESSURE_SLACK_BYTES else UPPER_SOURCE)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes // MIB} MiB"
