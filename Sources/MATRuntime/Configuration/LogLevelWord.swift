/// How much a daemon logs, as `log-level` of its configuration and `--log-level` name it: what swift-log calls so, but for `critical`, since no
/// daemon logs anything at that.
public enum LogLevelWord: String, CaseIterable, Sendable {
    case trace, debug, info, notice, warning, error
}
