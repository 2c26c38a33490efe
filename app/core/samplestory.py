"""What the sample organisation is made of: accounts, services, rhythms, commitments, and what goes wrong.

Days are relative to the story's last day (the anchor). Services are spelled as Cost Explorer spells them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

EC2 = "Amazon Elastic Compute Cloud - Compute"
EC2_OTHER = "EC2 - Other"
RDS = "Amazon Relational Database Service"
S3 = "Amazon Simple Storage Service"
FARGATE = "Amazon Elastic Container Service"
LAMBDA = "AWS Lambda"
CLOUDWATCH = "AmazonCloudWatch"
DYNAMODB = "Amazon DynamoDB"
SAGEMAKER = "Amazon SageMaker"
EMR = "Amazon Elastic MapReduce"
ATHENA = "Amazon Athena"
DATA_TRANSFER = "AWS Data Transfer"
BEDROCK = "Amazon Bedrock"
KAFKA = "Amazon Managed Streaming for Apache Kafka"
SAVINGS_PLAN = "Savings Plans for AWS Compute usage"

PLAN_ELIGIBLE: Final = frozenset({EC2, FARGATE, LAMBDA})
PLAN_START, PLAN_DISCOUNT, PLAN_SHARE = -215, 0.28, 0.62
"""A one-year, no-upfront Compute Savings Plan bought on day -215 for 62 % of what was eligible then; renewed yearly."""
RESERVATION_START, RESERVATION_DISCOUNT, RESERVATION_SHARE = -41, 0.34, 0.55
"""All-upfront reservations of the databases of RESERVED_ACCOUNT, bought on day -41 and renewed yearly: the unblended spike."""
RESERVED_ACCOUNT: Final = "prod-web"
SUPPORTED_ACCOUNT: Final = "prod-web"
"""The one account with a support plan."""
TERM: Final = 365
ADOPTION, OPENING, CLOSING = 45, 35, 25
"""Days that a new service takes to be used fully, an account to open and to close."""
TAX_RATE: Final = 0.014
"""Of everything: only some of it is taxed."""
LEVEL: Final = 0.92
"""What the dollars of SERVICES are multiplied with to meet the size of the company."""


# --- who and what -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """An account. `opened` and `closed` are days relative to the anchor; the first region is the main one."""

    name: str
    kind: str
    weight: float
    regions: tuple[str, ...]
    opened: int | None = None
    closed: int | None = None


MEMBERS: Final = (
    Member("management", "ops", 0.004, ("us-east-1",)),
    Member("security", "ops", 0.012, ("us-east-1", "eu-west-1")),
    Member("network", "ops", 0.035, ("us-east-1", "us-west-2", "eu-west-1", "eu-central-1")),
    Member("shared-services", "ops", 0.050, ("us-east-1", "eu-west-1")),
    Member("prod-web", "prod", 0.200, ("us-east-1", "us-west-2", "eu-west-1")),
    Member("prod-api", "prod", 0.170, ("us-east-1", "us-west-2")),
    Member("prod-eu", "prod", 0.110, ("eu-central-1", "eu-west-1", "eu-west-2")),
    Member("prod-apac", "prod", 0.045, ("ap-southeast-2", "ap-southeast-1", "ap-northeast-1"), opened=-130),
    Member("prod-data", "data", 0.150, ("us-east-1", "eu-west-1")),
    Member("analytics", "data", 0.090, ("us-east-1", "us-east-2")),
    Member("machine-learning", "data", 0.055, ("us-west-2", "us-east-1")),
    Member("staging", "dev", 0.045, ("us-east-1", "eu-west-1")),
    Member("development", "dev", 0.045, ("us-east-1", "us-west-2", "eu-central-1")),
    Member("sandbox", "dev", 0.012, ("us-east-1", "us-west-2")),
    Member("legacy-monolith", "prod", 0.030, ("us-east-1", "ca-central-1"), closed=-95),
)
PAYER: Final = "management"
ENABLED_REGIONS: Final = (
    "us-east-1",
    "us-east-2",
    "us-west-2",
    "ca-central-1",
    "sa-east-1",
    "eu-west-1",
    "eu-west-2",
    "eu-central-1",
    "ap-south-1",
    "ap-northeast-1",
    "ap-southeast-1",
    "ap-southeast-2",
)
PRICE_LEVEL: Final = {"us": 1.0, "ca": 1.08, "eu": 1.1, "ap": 1.2, "sa": 1.5}


@dataclass(frozen=True)
class Service:
    """A service: dollars a day of the whole organisation at list price on the anchor, and how they behave.

    `where` names kinds of accounts or accounts; `since` is the day it was adopted; `late` rows are not in a day's
    first report; `everywhere` means a little in every enabled region, as security tooling has.
    """

    name: str
    daily: float
    rhythm: str
    unit: str
    price: float
    where: tuple[str, ...]
    traffic: float = 0.0
    growth: float = 0.2
    noise: float = 0.02
    late: bool = False
    everywhere: bool = False
    region: str | None = None
    since: int | None = None


ANY = ("prod", "data", "dev", "ops")
USED = ("prod", "data", "dev", "shared-services")
SERVICES: Final = (
    Service(EC2, 5500, "compute", "Hrs", 0.192, (*ANY[:3], "shared-services", "network"), traffic=0.55),
    Service(EC2_OTHER, 1270, "mixed", "N/A", 0.09, (*USED, "network"), traffic=0.3, growth=0.24),
    Service(RDS, 1640, "flat", "Hrs", 0.48, USED, growth=0.18, noise=0.008),
    Service(S3, 920, "flat", "GB-Mo", 0.022, ANY, growth=0.34, noise=0.01, late=True),
    Service("Amazon CloudFront", 530, "web", "GB", 0.07, ("prod-web", "prod-eu", "prod-apac"), traffic=1.1, region="global", late=True),
    Service(DATA_TRANSFER, 490, "web", "GB", 0.085, ("prod", "network", "prod-data"), traffic=1.25, noise=0.015, late=True),
    Service("Amazon ElastiCache", 310, "flat", "Hrs", 0.156, ("prod", "staging"), noise=0.006),
    Service(DYNAMODB, 255, "web", "N/A", 0.3, ("prod", "staging"), traffic=0.9),
    Service("Amazon Elastic Load Balancing", 215, "mixed", "Hrs", 0.0252, ("prod", "dev", "network"), traffic=0.6),
    Service(FARGATE, 340, "compute", "Hrs", 0.0405, ("prod-api", "prod-eu", "prod-apac", "staging", "shared-services"), traffic=0.7),
    Service("Amazon Elastic Container Service for Kubernetes", 140, "flat", "Hrs", 0.10, ("prod-web", "prod-eu", "dev", "data"), noise=0.004),
    Service(LAMBDA, 180, "web", "Lambda-GB-Second", 0.0000166667, ("prod", "data", "dev"), traffic=1.0, growth=0.35),
    Service(CLOUDWATCH, 310, "mixed", "N/A", 0.5, ANY, traffic=0.5, growth=0.28),
    Service("Amazon OpenSearch Service", 290, "flat", "Hrs", 0.284, ("prod-web", "prod-api", "prod-eu", "shared-services"), noise=0.006),
    Service("Amazon Redshift", 360, "flat", "Hrs", 1.086, ("analytics", "prod-data"), noise=0.01),
    Service(KAFKA, 190, "flat", "Hrs", 0.21, ("prod-data", "prod-api"), since=-240, noise=0.006),
    Service("Amazon Kinesis", 115, "web", "Hrs", 0.015, ("prod-data", "analytics"), traffic=0.8),
    Service("Amazon Kinesis Firehose", 42, "web", "GB", 0.029, ("prod-data", "analytics"), traffic=0.9),
    Service("AWS Glue", 165, "batch", "DPU-Hour", 0.44, ("analytics", "prod-data"), noise=0.07),
    Service(EMR, 235, "batch", "Hrs", 0.052, ("analytics", "prod-data"), noise=0.08),
    Service(ATHENA, 85, "batch", "Terabytes", 5.0, ("analytics", "prod-data", "shared-services"), noise=0.09),
    Service(SAGEMAKER, 290, "training", "Hrs", 3.825, ("machine-learning",), growth=0.4, noise=0.05),
    Service(BEDROCK, 370, "web", "1K tokens", 0.003, ("prod-api", "prod-web", "machine-learning"), traffic=0.8, growth=0.9, since=-170, noise=0.05),
    Service("Amazon Virtual Private Cloud", 195, "flat", "Hrs", 0.005, ANY, noise=0.006),
    Service("Amazon Route 53", 26, "web", "Queries", 0.0000004, ("network", "prod-web"), traffic=0.8, region="global"),
    Service("Amazon Elastic File System", 70, "flat", "GB-Mo", 0.3, ("prod-web", "shared-services", "dev"), noise=0.006),
    Service("Amazon EC2 Container Registry (ECR)", 34, "flat", "GB-Mo", 0.1, ("shared-services", "prod", "dev"), growth=0.3),
    Service("AWS Backup", 95, "flat", "GB-Mo", 0.05, ("prod", "prod-data"), growth=0.3, late=True),
    Service("Amazon Simple Queue Service", 36, "web", "Requests", 0.0000004, ("prod", "data", "dev"), traffic=1.0, noise=0.03),
    Service("Amazon Simple Notification Service", 17, "web", "Requests", 0.0000005, ("prod", "dev", "security"), traffic=0.9, noise=0.04),
    Service("Amazon Simple Email Service", 13, "web", "Count", 0.0001, ("prod-web", "prod-eu"), noise=0.08),
    Service("AWS Step Functions", 24, "batch", "StateTransitions", 0.000025, ("analytics", "prod-api"), noise=0.06),
    Service("Amazon API Gateway", 75, "web", "Requests", 0.0000035, ("prod-api", "prod-eu", "prod-apac", "staging"), traffic=1.0),
    Service("AWS WAF", 52, "web", "Requests", 0.0000006, ("prod-web", "prod-eu", "prod-apac"), traffic=0.5, region="global"),
    Service("AWS Config", 66, "mixed", "ConfigurationItemRecorded", 0.003, ANY, everywhere=True, noise=0.09),
    Service("AWS CloudTrail", 32, "mixed", "Events", 0.00002, ANY, everywhere=True, noise=0.07),
    Service("Amazon GuardDuty", 98, "mixed", "GB", 1.0, ANY, everywhere=True, noise=0.05),
    Service("AWS Key Management Service", 25, "mixed", "Requests", 0.000003, ANY, everywhere=True, noise=0.04),
    Service("AWS Security Hub", 45, "flat", "Checks", 0.001, ANY, noise=0.03),
    Service("Amazon Inspector", 21, "flat", "Count", 0.0411, ("prod", "dev"), noise=0.03),
    Service("AWS Secrets Manager", 15, "flat", "Secrets", 0.0131506849, ANY, noise=0.004),
    Service("CloudWatch Events", 4, "web", "Events", 0.000001, ANY, noise=0.06),
    Service("AWS Systems Manager", 6, "flat", "Count", 0.0016, ANY, noise=0.05),
    Service("Amazon WorkSpaces", 104, "office", "Hrs", 0.26, ("shared-services",)),
    Service("AWS Directory Service", 21, "flat", "Hrs", 0.12, ("shared-services",), noise=0.002),
    Service("Amazon QuickSight", 43, "flat", "Users", 0.78, ("analytics",), noise=0.004),
    Service("CodeBuild", 28, "office", "Minutes", 0.005, ("shared-services", "development"), noise=0.08),
    Service("AWS Cost Explorer", 1.1, "flat", "Requests", 0.01, ("management",), noise=0.05),
)  # fmt: skip

WEEK: Final = {
    # Monday to Sunday. Development is switched off at weekends, batch work waits for them.
    ("web", "prod"): (1.00, 1.03, 1.04, 1.02, 0.98, 0.80, 0.76),
    ("web", "dev"): (1.00, 1.03, 1.04, 1.03, 0.97, 0.42, 0.38),
    ("compute", "prod"): (1.00, 1.015, 1.02, 1.01, 0.99, 0.86, 0.84),
    ("compute", "dev"): (1.00, 1.02, 1.03, 1.02, 0.96, 0.40, 0.36),
    ("mixed", "prod"): (1.00, 1.01, 1.01, 1.01, 0.99, 0.92, 0.91),
    ("mixed", "dev"): (1.00, 1.01, 1.01, 1.01, 0.98, 0.72, 0.70),
    ("flat", "dev"): (1.00, 1.00, 1.00, 1.00, 1.00, 0.93, 0.93),
    ("batch", "prod"): (0.86, 0.92, 0.95, 0.97, 1.00, 1.22, 1.50),
    ("training", "prod"): (0.95, 1.05, 1.10, 1.10, 1.05, 0.80, 0.70),
    ("office", "prod"): (1.00, 1.04, 1.05, 1.03, 0.94, 0.28, 0.22),
}
"""Factor of each weekday by rhythm and kind of account; what is not here is flat."""


@dataclass(frozen=True)
class Incident:
    """Something that goes wrong: an anomaly, with its label. `start` is a day relative to the anchor.

    `size` is dollars a day at the worst (for a `drop`, the part of the cost that is lost).
    """

    kind: str
    start: int
    days: int
    size: float
    account: str
    service: str
    region: str
    cause: str


INCIDENTS: Final = (
    Incident("spike", -12, 4, 2350, "prod-api", EC2_OTHER, "us-east-1", "A retry loop sends traffic through a NAT gateway"),
    Incident("level_shift", -37, 17, 430, "prod-web", CLOUDWATCH, "us-east-1", "Debug logging was left on after a release"),
    Incident("new_region", -62, 5, 1900, "sandbox", EC2, "eu-north-1", "A leaked key starts GPU instances in an unused region"),
    Incident("drop", -88, 8, 0.97, "analytics", EMR, "us-east-1", "The nightly pipeline does not start"),
    Incident("weekend", -114, 16, 460, "development", EC2, "us-east-1", "The weekend shutdown of development fails"),
    Incident("leak", -140, 24, 620, "prod-data", S3, "us-east-1", "Object versions pile up without a lifecycle rule"),
    Incident("new_service", -166, 12, 540, "development", SAGEMAKER, "us-west-2", "Inference endpoints of a trial are left running"),
    Incident("spike", -191, 1, 1850, "analytics", ATHENA, "us-east-1", "A query scans the whole lake again and again"),
    Incident("level_shift", -217, 20, 410, "staging", RDS, "us-east-1", "A load test's large database stays"),
    Incident("spike", -243, 2, 1500, "prod-data", DATA_TRANSFER, "us-east-1", "A backup is copied between regions twice"),
    Incident("leak", -269, 24, 560, "prod-api", DYNAMODB, "us-east-1", "A hot partition drives on-demand writes"),
    Incident("spike", -295, 2, 1700, "prod-api", LAMBDA, "us-east-1", "A function triggers itself"),
    Incident("level_shift", -322, 18, 470, "prod-eu", EC2, "eu-central-1", "Double capacity stays after a migration"),
)  # fmt: skip
CYCLE: Final = 48 * 7
"""The incidents come again after this many days, with other sizes: before the anchor's year and after it."""
DETECT_WITHIN: Final = {"level_shift": 14, "new_service": 7, "new_region": 7, "drop": 7, "weekend": 16}
LABEL_GRACE: Final = 3
