import MATCommand

@main
enum Mat {
    static func main() { MatCommand.execute() }
}
