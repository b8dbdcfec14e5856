import Glibc
import IMS
import IMSCluster
import MATRuntime
import MATSignal

/// Export and import without imsd, straight from and into the store that its configuration names.
struct StoredTransfer {
    private let configuration: IMSConfiguration

    init(_ path: String, _ control: IMSControl) throws(CommandFailure) {
        do throws(ConfigurationError) {
            configuration = try IMSConfiguration(path: path)
        } catch {
            throw CommandFailure(error.description)
        }
        // A cluster's servers see what is written; one with a file would neither see it, nor be seen writing.
        guard configuration.etcd == nil else { return }
        for path in Set([configuration.controlPath, control.path]) {
            do throws(ControlError) {
                _ = try ControlClient.request(JSONValue.self, path: path, command: "status", timeout: .seconds(2), daemon: "imsd")
            } catch {
                // Who may not ask it does not know that it is stopped.
                if error.cause == .forbidden { throw CommandFailure(error) }
                if error.cause == .absent { continue }
            }
            throw CommandFailure("imsd is running (it answers at \(path)): leave out --config, or stop it first")
        }
    }

    private func open() throws(CommandFailure) -> StoreSession {
        do throws(StoreError) {
            return StoreSession(try configuration.openStore())
        } catch {
            throw CommandFailure(error.description)
        }
    }

    /// Gives all that the store holds, the header first.
    func export(secrets: Bool, _ take: (TransferLine) throws(CommandFailure) -> Void) throws(CommandFailure) {
        let session = try open()
        try take(
            .header(
                TransferHeader(
                    exportedAt: SystemClock.now().wallMilliseconds, program: "mat \(MATVersion.text)",
                    prefixes: configuration.served.map(\.prefix.description))))
        let unreadable = try read(session) { line throws(CommandFailure) in
            switch line {
            case .secret, .token: guard secrets else { return }
            default: break
            }
            try take(line)
        }
        for name in unreadable { StandardError.write("mat: the store holds something unreadable about \(name); it is left out") }
    }

    private func read(_ session: StoreSession, _ body: (TransferLine) throws(CommandFailure) -> Void) throws(CommandFailure) -> [String] {
        do {
            return try session.read(body)
        } catch {
            throw error as? CommandFailure ?? CommandFailure("\(error)")
        }
    }

    /// Takes what is newer into the store.
    func `import`(_ source: TransferSource, isTrial: Bool) throws(CommandFailure) -> TransferOutcome {
        let check = TransferCheck(served: configuration.served.map(\.prefix), keys: try keys())
        var outcome = TransferOutcome()
        let session = try open()
        _ = try read(session) { _ throws(CommandFailure) in }
        let now = SystemClock.now()
        var progress = Progress(isTrial ? "lines checked" : "lines imported")
        defer { progress.end() }
        try source.forEachGroup(lines: 4096, octets: 8 << 20) { lines throws(CommandFailure) in
            defer { progress.advance(by: lines.count) }
            var good: [TransferLine] = []
            for line in lines {
                if let refusal = check.refusal(of: line, now: now) { outcome.skip(line.name, refusal) } else { good.append(line) }
            }
            guard !isTrial else { return }
            do throws(StoreError) {
                outcome += try session.take(good)
            } catch {
                throw CommandFailure(error.description)
            }
        }
        return outcome
    }

    private func keys() throws(CommandFailure) -> [PublicKey] {
        do throws(IMSServerError) {
            let own = try configuration.signingKey().map { [$0.publicKey] } ?? []
            return own + configuration.publicKeys + configuration.previousKeys
        } catch {
            throw CommandFailure(error.description)
        }
    }
}
