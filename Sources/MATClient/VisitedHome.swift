import MATControl
import MATRuntime
import MATSignal
import Synchronization

/// A home address of the network that the host is in, lent to this program: its agent gives it back when no program has it any more.
public final class VisitedHome: Sendable {
    /// One of the host's addresses, for `bind`.
    public let address: HomeAddress
    private let number: UInt64
    private let thread: ClientThread
    // Its thread has the connection.
    private let client: MobilityClient

    private static let count = Atomic<UInt64>(0)

    init(_ held: Held, of client: MobilityClient, _ thread: ClientThread) {
        address = held.address
        self.client = client
        self.thread = thread
        let number = Self.count.wrappingAdd(1, ordering: .relaxed).newValue
        self.number = number
        thread.post { $0.hold(number, held.session) }
    }

    deinit { giveBack() }

    /// Gives it back. Connections from it end when the agent takes it away, which is later, and not at all while other programs have it.
    public func giveBack() {
        thread.post { [number] in $0.endVisit(number) }
    }

    /// Returns when it is not this program's any more: it was given back, or the agent has ended, and its successor knows nothing of it. Ask for
    /// another one then.
    public func ended() async {
        let (stream, continuation) = AsyncStream<Void>.makeStream()
        thread.post { [number] in $0.whenEnded(number) { continuation.finish() } }
        for await _ in stream {}
    }

    /// What the agent gave, on its way to the loop's thread.
    final class Held: @unchecked Sendable {
        let address: HomeAddress
        let session: ControlSession

        private init(_ address: HomeAddress, _ session: ControlSession) {
            self.address = address
            self.session = session
        }

        static func ask(_ control: String, _ family: AddressFamily) -> Result<Held, ClientError> {
            do throws(ControlError) {
                let (report, session) = try ControlClient.hold(
                    VisitedHomeReport.self, path: control, command: NodeCommand.visit.rawValue,
                    arguments: VisitedHomeRequest(family: family == .ipv4 ? .ipv4 : .ipv6), daemon: "matd")
                guard let address = HomeAddress(report.address) else {
                    return .failure(ClientError(description: "matd gave \(report.address), which is no address"))
                }
                return .success(Held(address, session))
            } catch {
                return .failure(ClientError(description: error.description))
            }
        }
    }
}
