import MATControl
import MATRuntime
import MATSignal
import NodeCore

// Programs that ask for a visited home: it is theirs as long as their connection stands, so that one that dies gives it back.

extension NodeService {
    /// Answers when there is one, or why there is none.
    func visit(_ request: ControlRequest, _ respond: @escaping (ControlResponse) -> Void) throws(ControlError) {
        let wanted = try request.arguments(as: VisitedHomeRequest.self).family
        let family: AddressFamily =
            switch wanted {
            case .ipv4: .ipv4
            case .ipv6: .ipv6
            case nil: configuration.homes.first?.hoa.family ?? .ipv4
            }
        guard !askingPrograms.keys.contains(request.connection), control?.hold(request.connection) == true else {
            throw ControlError("too many programs have visited homes, or this connection asks twice")
        }
        askingPrograms[request.connection] = respond
        shell.run { node, now in node.visit(.asking(connection: request.connection), family, now: now) }
    }

    func answered(_ program: VisitingProgram, _ answer: VisitAnswer) {
        switch program {
        case .asking(let connection): answered(asking: connection, answer)
        case .starting(let connection, let family): answered(starting: connection, family, answer)
        case .steered: break
        }
    }

    private func answered(asking connection: UInt64, _ answer: VisitAnswer) {
        let respond = askingPrograms.removeValue(forKey: connection)
        switch answer {
        case .address(let hoa):
            // If it has gone meanwhile, answering it finds that out.
            visitingPrograms.insert(connection)
            respond?(.result(VisitedHomeReport(address: "\(hoa)")))
        case .refused(let reason):
            // What it asked for first, if this was its second wish, stays.
            if !visitingPrograms.contains(connection) { control?.release(connection) }
            respond?(.failed("no visited home: \(reason)"))
        }
    }

    /// The program is done, or its connection has ended.
    @discardableResult
    func release(_ connection: UInt64) -> Bool {
        let had = visitingPrograms.remove(connection) != nil
        askingPrograms[connection] = nil
        control?.release(connection)
        shell.run { node, now in node.endVisit(.asking(connection: connection), now: now) }
        return had
    }
}
