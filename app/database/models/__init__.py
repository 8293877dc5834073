"""The tables, one file for each group. Importing this package fills `Base.metadata` with all of them."""

from app.database.base import Base
from app.database.models.calibrations import ActivationModel, CalibrationModel
from app.database.models.campaigns import CampaignModel, SubmissionModel
from app.database.models.events import JobEventModel
from app.database.models.fits import CalibrationRowsModel, CampaignFitModel
from app.database.models.jobs import JobModel, RequirementModel
from app.database.models.keys import ApiKeyModel
from app.database.models.measurements import LateResultModel, MeasurementModel
from app.database.models.observations import ObservationModel
from app.database.models.workers import WorkerModel

__all__ = [
    "ActivationModel",
    "ApiKeyModel",
    "Base",
    "CalibrationModel",
    "CalibrationRowsModel",
    "CampaignFitModel",
    "CampaignModel",
    "JobEventModel",
    "JobModel",
    "LateResultModel",
    "MeasurementModel",
    "ObservationModel",
    "RequirementModel",
    "SubmissionModel",
    "WorkerModel",
]
