import IMSCore
import Logging
import MATSignal

extension IMSServer {
    /// One line for one change, with what a program may want to filter by as metadata.
    func log(_ change: BindingChange) {
        let level = Logger.Level(rawValue: change.level.rawValue) ?? .info
        guard level >= logger.logLevel else { return }
        var metadata: Logger.Metadata = [
            "hoa": "\(change.hoa.shortText)", "reason": "\(change.reason.rawValue)",
            "sequence": "\(change.sequence)", "before": "\(Self.places(change.before))", "after": "\(Self.places(change.after))",
        ]
        if let source = change.source { metadata["source"] = "\(source)" }
        if let by = change.by { metadata["by"] = "\(by.shortText)" }
        logger.log(level: level, "mapping \(change.reason.rawValue)", metadata: metadata)
    }

    private static func places(_ places: [Whereabouts]) -> String {
        places.isEmpty ? "none" : places.map(\.description).joined(separator: ",")
    }
}
