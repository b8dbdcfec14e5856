/// The version that all programs of this package report.
public enum MATVersion {
    public static let text = "0.1.0"
}
