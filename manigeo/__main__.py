from manigeo.cli.main import main

main()
