"""`certify report`: writes the page of a bundle again, without any framework."""

from harness.attestation import load_trust
from harness.cli.options import AtOption, BundleArgument, JsonOption, TrustOption, moment
from harness.cli.terminal import MET
from harness.cli.verdict import print_verdict
from harness.levels.rule import certify
from harness.levels.submission import read_submission
from harness.report import write_report


def report(
    bundle: BundleArgument,
    trust: TrustOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check a bundle as 'certify verify' does, and write its page again. Needs no framework.

    Exit code 0: the bundle is as recorded, at any level. 2: it is not.
    """
    submission = read_submission(bundle, load_trust(trust) if trust else None, when := moment(at))
    certificate = certify(submission, when)
    write_report(submission, certificate)
    print_verdict(submission.bundle, certificate, as_json)
    return MET
