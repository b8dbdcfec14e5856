import Glibc
import MATClient
import MATSignal

/// example-watch HOME-ADDRESS: a line whenever it is somewhere else, until it is ended.
@main
struct Watch {
    static func main() async throws {
        guard CommandLine.arguments.count == 2, let home = HomeAddress(CommandLine.arguments[1]) else {
            print("usage: example-watch HOME-ADDRESS")
            exit(64)
        }
        let client = try MobilityClient()
        for await news in client.watch(home) {
            switch news {
            case .found(.registered(let mapping)): print("\(home) is at \(mapping.record.locators.map { "\($0.moa)" }.joined(separator: ", "))")
            case .found(let place): print("\(home): \(place)")
            case .failed(let failure): print("nobody says where \(home) is: \(failure)")
            }
            // To be seen at once, in a file too.
            fflush(nil)
        }
    }
}
