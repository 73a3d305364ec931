from tts_generate.trajectories.schema import Manifest, Question, Trajectory

TrajectoryStore = StoreWriter = None
